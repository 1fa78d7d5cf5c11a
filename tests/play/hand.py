"""What a reader's hand does on the page that plays, and what stands there."""

from __future__ import annotations

import re


def shown(page, name: str) -> list[float]:
    """The numbers under the picture."""
    text = page.locator(f'[data-value="{name}"]').inner_text()
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text.replace("−", "-"))]


def choose(page, name: str) -> None:
    page.select_option("#play select", name)
    page.wait_for_function("DiffeoPlay.page.view.ready")


def drag(page, canvas: int, start: tuple[float, float], stop: tuple[float, float]) -> None:
    """From one place of a canvas to another, each in shares of its width and height."""
    box = page.locator("#play canvas").nth(canvas).bounding_box()
    at = [(box["x"] + a * box["width"], box["y"] + b * box["height"]) for a, b in (start, stop)]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=3)
    page.mouse.up()


def picture(page, canvas: int) -> str:
    """A canvas as data, once it is drawn."""
    page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    return page.locator("#play canvas").nth(canvas).evaluate("(canvas) => canvas.toDataURL()")
