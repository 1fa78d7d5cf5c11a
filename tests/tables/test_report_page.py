"""The page of a report, read by a browser in both schemes, wide and narrow, with hostile names."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from diffeo.tables import Table, compare, fit_table, report
from diffeo.tables.likelihoods import Reason, calibration

HOSTILE = "<script>alert(1)</script>"
LONG = "a_name_without_a_blank_" * 8


def hostile(rows: int, seed: int) -> Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    level = np.where(x + rng.normal(size=rows) > 0, "<img src=x onerror=alert(2)>", "&amp; \u202e\x00\"'")
    return Table.of(
        {
            HOSTILE: x,
            LONG: x + rng.normal(size=rows),
            "\"><svg onload='alert(3)'>": pa.array(level.tolist()),
            "gaps": pa.array(np.where(rng.random(rows) < 0.3, None, np.round(x, 1)).tolist(), pa.float64()),
            "many": pa.array([LONG + str(i) for i in rng.integers(30, size=rows)]),
            "day": pa.array(rng.poisson(300, rows).astype("datetime64[D]")),
            **{f"column {i}": rng.normal(size=rows) for i in range(10)},
        }
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The page of a report on hostile tables."""
    rows = np.random.default_rng(0).normal(size=(300, 2))
    found = report(fit_table(rows, max_steps=10)[0], rows)
    real, drawn, test = (hostile(rows, seed) for rows, seed in ((300, 0), (300, 1), (100, 2)))
    cells = [found.schema[0], *((name, "category", "string", "0.0%", HOSTILE) for name in real.names)]
    reasons = Reason(HOSTILE, LONG, 3.5), Reason(LONG, HOSTILE, math.inf)
    page = replace(
        found,
        schema=tuple(cells),
        comparison=compare(real, drawn, test=test),
        calibration=tuple(calibration(name, np.linspace(0, 1, 50)) for name in real.names),
        rare=(replace(found.rare[0], reasons=reasons), *found.rare[1:]),
        notes=(f"a note of {HOSTILE}",),
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    page.write(path)
    return path


@pytest.fixture(params=[("light", 1200), ("dark", 1200), ("light", 360), ("dark", 360)], ids=str)
def page(request, browser, written: Path):
    """The page as the browser shows it; afterwards, that it complained of nothing and loaded itself alone."""
    scheme, width = request.param
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append("a dialog"))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(written.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    yield page
    page.close()
    assert not wrong
    assert asked == [written.as_uri()]


def test_names_are_text_and_nothing_else(page):
    assert page.evaluate("document.scripts.length + document.images.length + document.links.length") == 11
    assert page.locator("[onload], [onerror]").count() == 0
    headings = page.locator("h4").all_inner_texts()
    assert HOSTILE in headings
    assert LONG in headings
    assert "<img src=x onerror=alert(2)>" in page.locator(".levels th").all_inner_texts()
    assert "\u202e" not in page.content()


def test_it_fits_the_window_however_long_a_name_is(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    spill = """() => [...document.querySelectorAll('h1, h2, h3, h4, p, dd, .tiles li, .cards > li, .note')]
        .filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
        .map((each) => each.textContent)"""
    assert page.evaluate(spill) == []


def test_every_section_has_its_figures(page):
    titles = page.locator("h2").all_inner_texts()
    assert titles == page.locator("nav a").all_inner_texts()
    assert len(titles) == 10
    for target in page.locator("nav a").all():
        assert page.locator(target.get_attribute("href")).count() == 1
    assert page.locator(".tiles li").count() == 7
    assert page.locator("#s3 .cards > li").count() == 16
    assert page.locator("#s4 .map rect").count() == 16 * 16
    assert page.locator("#s4 tbody tr").count() == 12
    assert page.locator("#s5 tbody tr").count() == 10
    assert page.locator("#s7 svg[role=img]").count() == 17
    assert "does not measure privacy" in page.locator("#s8").inner_text()
    assert page.locator("#s9 tbody tr").count() == 10


def test_what_is_drawn_is_seen(page):
    heights = page.evaluate(
        "[...document.querySelectorAll('svg[role=img]')].map((each) => each.getBoundingClientRect().height)"
    )
    assert len(heights) > 30
    assert min(heights) > 50
    bars = page.evaluate(
        "[...document.querySelectorAll('.levels rect')].map((e) => e.getBoundingClientRect().width)"
    )
    assert max(bars) > 30


def test_it_is_read_aloud_as_it_is_seen(page):
    """Headings in order, pictures with words, tables with captions, boxes that keys can scroll."""
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.title()
    levels = [
        int(tag[1])
        for tag in page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((e) => e.tagName)")
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    bare = "svg:not([role=img][aria-label]):not([aria-hidden=true])"
    assert page.locator(bare).count() == 0
    for table in page.locator("table").all():
        assert table.locator("caption").count() == 1
        assert table.locator("thead th[scope=col]").count() > 1
        assert table.locator("tbody tr").count() == table.locator("tbody th[scope=row]").count()
    boxes = page.locator(".scroll")
    assert boxes.count() == page.locator(".scroll[role=region][aria-label][tabindex='0']").count()
    assert (
        page.evaluate("new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size")
        == page.locator("[id]").count()
    )


def test_keys_go_through_it_in_order(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "What each column was taken for"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"


def luminance(color: str) -> float:
    channels = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one: str, other: str) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_colors_can_be_told_from_their_ground(page, request):
    shown: list[list[Any]] = page.evaluate(
        """() => {
            const ground = (each) => {
                const found = getComputedStyle(each).backgroundColor;
                return /, 0\\)$/.test(found) && each.parentElement ? ground(each.parentElement) : found;
            };
            const text = [...document.querySelectorAll('body *')].filter((each) =>
                [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
            const words = text.filter((each) => !each.closest('svg, style, script'))
                .map((each) => [each.tagName, getComputedStyle(each).color, ground(each), 4.5]);
            const marks = [['.edge', 'stroke'], ['.step', 'stroke'], ['.bar-real', 'fill'],
                ['.bar-synthetic', 'fill'], ['.whisker', 'stroke'], ['.rule', 'stroke'],
                ['svg text', 'fill']];
            return words.concat(marks.map(([which, how]) => {
                const each = document.querySelector(which);
                return [which, getComputedStyle(each)[how], ground(each.closest('div, li, ul')), 3];
            }));
        }"""
    )
    assert len(shown) > 200
    weak = [found for found in shown if contrast(found[1], found[2]) < found[3]]
    assert not weak
    scheme = request.node.callspec.params["page"][0]
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) > 0.5) == (scheme == "light")


class Tags(HTMLParser):
    """What a page has that could load or run something."""

    def __init__(self, page: str):
        super().__init__()
        self.seen: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen |= {tag} & {"script", "link", "img", "image", "use", "iframe", "object", "embed", "base"}
        self.seen |= {name for name, _ in attrs if name.startswith("on") or name in ("src", "style")}
        self.seen |= {value for name, value in attrs if name.endswith("href") and value and value[0] != "#"}


def test_nothing_in_it_is_fetched_or_run(written: Path):
    text = written.read_text(encoding="utf-8")
    assert Tags(text).seen == set()
    assert Tags('<a href="x"><img src=y onload=z></a>').seen == {"x", "img", "src", "onload"}
    style = re.findall(r"<style>(.*?)</style>", text, re.S)
    assert len(style) == 1
    assert not re.search(r"@import|url\(", style[0])
    assert "default-src 'none'" in text
