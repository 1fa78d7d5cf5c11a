"""Models of one's own on the page that plays: what is read, what is refused and in which words."""

from __future__ import annotations

import json
import math

import pytest
import torch
from cases import stirred
from play.hand import choose, drag, picture, shown

from diffeo import presets
from diffeo.interop import browser_json


def model(*layers: dict, features: int = 1) -> dict:
    return {"format": "diffeo layers 1", "features": features, "layers": list(layers)}


def normalize(*columns: tuple[float, float]) -> dict:
    """A layer of locations and logarithms of scales, a pair for each column."""
    loc, log_scale = zip(*columns, strict=True)
    return {"kind": "normalize", "loc": loc, "log_scale": log_scale}


def send(page, name: str, content: object) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    file = {"name": name, "mimeType": "application/json", "buffer": text.encode()}
    page.locator("#play input[type=file]").set_input_files(file, timeout=10_000)


def opened(page, name: str) -> None:
    page.wait_for_function(
        "(key) => DiffeoPlay.page.select.value === key && DiffeoPlay.page.view?.ready",
        arg=f"file: {name}",
        timeout=10_000,
    )


def refused(page, text: str) -> None:
    page.locator(".play-problem").filter(has_text=text).wait_for(timeout=10_000)


def listed(page) -> list[str]:
    return page.locator("#play select option").all_inner_texts()


def test_a_model_of_ones_own_is_opened_or_refused(page):
    flow = stirred(presets.NSF(features=2, bins=4, layers=2, hidden=8).build()).double()
    send(page, "own.json", browser_json(flow))
    opened(page, "own.json")
    point = page.evaluate("DiffeoPlay.page.point")
    x = flow.to_data(torch.tensor(point["z"], dtype=torch.float64)).tolist()
    assert point["x"] == pytest.approx(x, rel=1e-9)
    assert shown(page, "x") == pytest.approx(x, abs=6e-4)  # three decimals: the panel is more than 10 wide
    assert not page.locator(".play-problem").is_visible()
    before = listed(page)
    send(page, "text.json", "not a model")
    refused(page, "text.json: this is not JSON")
    send(page, "none.json", model())
    refused(page, "none.json: the model has no layers")
    send(page, "wide.json", browser_json(presets.NSF(features=3, layers=2, hidden=8).build()))
    refused(page, "wide.json: it has 3 columns; this page draws 1 or 2")
    assert page.locator("#play select").input_value() == "file: own.json"  # which stays
    assert listed(page) == before


def test_a_file_mended_is_chosen_again(page, tmp_path):
    path = tmp_path / "mine.json"
    chosen = page.locator("#play input[type=file]")
    for content, then in [("{", refused), (json.dumps(model(normalize((1.0, 0.0)))), opened)]:
        path.write_text(content)
        chosen.set_input_files(path)
        then(page, "mine.json")
        assert chosen.input_value() == ""  # else a browser keeps silent when the same name is chosen


@pytest.mark.parametrize("name", ["pinwheel", "__proto__"])
def test_a_file_takes_no_other_models_place(page, name):
    before = listed(page)
    send(page, name, model({"kind": "nonsense"}))
    refused(page, f"{name}: there is no layer nonsense here")
    assert listed(page) == before
    send(page, name, model(normalize((7.0, 0.0))))
    opened(page, name)
    assert listed(page) == [*before, name]
    choose(page, "pinwheel")
    assert page.evaluate("DiffeoPlay.page.flow.layers.length") == 11
    page.select_option("#play select", f"file: {name}")
    opened(page, name)
    assert shown(page, "x") == [7.8]


def test_what_is_too_large_is_refused_at_once(page, tmp_path):
    step = {"kind": "permute", "order": [0, 1]}
    send(page, "deep.json", model(*[step] * 201, features=2))
    refused(page, "deep.json: it has 201 layers; this page draws up to 200")
    send(page, "wide.json", model({"kind": "never built"}, features=3))
    refused(page, "wide.json: it has 3 columns; this page draws 1 or 2")
    path = tmp_path / "big.json"
    with path.open("wb") as file:
        file.truncate(20_100_000)
    page.locator("#play input[type=file]").set_input_files(path)
    refused(page, "big.json: it has 20.1 MB; this page reads up to 20")
    send(page, "full.json", model(*[step] * 200, features=2))
    opened(page, "full.json")


WILD = {
    "far": model(normalize((5e15, 0.0))),
    "far, 2-d": model(normalize((5e15, 0.0), (0.0, 0.0)), features=2),
    "a point": model(normalize((0.0, -800.0))),
    "a point away from 0": model(normalize((1.0, -37.5))),
    "a point, 2-d": model(normalize((0.0, 0.0), (0.0, -800.0)), features=2),
    "boundless": model(normalize((0.0, 800.0))),
    "boundless, 2-d": model(normalize((0.0, 800.0), (0.0, 0.0)), features=2),
}


@pytest.mark.parametrize("name", WILD)
def test_what_cannot_be_drawn_is_said_in_words(page, name):
    send(page, "wild.json", WILD[name])
    refused(page, "layer 1")
    assert "cannot be drawn; it lies between" in page.locator(".play-problem").inner_text()
    assert page.locator("#play canvas").count() == 0  # no picture half drawn
    choose(page, "peaks")
    assert not page.locator(".play-problem").is_visible()
    assert page.locator("#play canvas").count() == 1


def test_marks_of_an_axis_are_few_even_where_numbers_run_out(page):
    def ticks(low: str, high: str) -> list[float]:
        return page.evaluate(f"DiffeoPlay.ticks({low}, {high}, 5)")

    assert ticks("-1", "1.2") == [-1, -0.5, 0, 0.5, 1]
    assert ticks("5e15 - 1", "5e15 + 1") == [5e15 - 1, 5e15, 5e15 + 1]
    assert ticks("0", "Infinity") == ticks("NaN", "NaN") == ticks("3", "3") == []
    choose(page, "peaks")
    assert page.evaluate("DiffeoPlay.page.view.scale(Infinity, 100, 'left', {})") is None


@pytest.mark.parametrize("scale", [1e-4, 1e-12, 1e6])
def test_a_point_is_dragged_in_data_of_any_scale(page, scale):
    send(page, "scaled.json", model(normalize(*[(0.0, math.log(scale))] * 2), features=2))
    opened(page, "scaled.json")
    seen = []
    for stop in [(0.4, 0.4), (0.41, 0.4), (0.7, 0.6)]:
        drag(page, 2, (0.5, 0.5), stop)
        x, z = (
            [float(number) for number in text.strip("()").split(", ")]
            for text in (
                page.locator(f'[data-value="{name}"]').inner_text().replace("−", "-") for name in ("x", "z")
            )
        )
        assert [v / scale for v in x] == pytest.approx(z, abs=6e-5)
        seen.append(x)
    widths = page.evaluate("(({ box }) => [box[1] - box[0], box[3] - box[2]])(DiffeoPlay.page.view.data)")
    moved = [(b - a) / width for a, b, width in zip(seen[0], seen[2], widths, strict=True)]
    assert 0.25 < moved[0] < 0.5
    assert -0.35 < moved[1] < -0.15
    assert seen[0] != seen[1]


def test_narrow_densities_are_drawn_too(page):
    send(page, "narrow.json", model(normalize((0.0, -37.5))))
    opened(page, "narrow.json")
    assert not page.locator(".play-problem").is_visible()
    scale = math.exp(-37.5)
    text = page.locator('[data-value="x"]').inner_text()
    assert float(text.replace("−", "-")) / scale == pytest.approx(0.8, rel=1e-3)
    page.locator("#play input[type=range]").fill("1")
    picture(page, 0)  # once it is drawn
    box = page.evaluate("DiffeoPlay.page.view.panel.box.slice(2)")
    assert [edge / scale for edge in box] == pytest.approx([-3.6 * 1.08, 3.6 * 1.08])
