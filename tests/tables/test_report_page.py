"""``report``: what it says of a model, and the page it writes, read by a browser in both schemes."""

from __future__ import annotations

import json
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
from scipy import stats
from typer.testing import CliRunner

import diffeo
from diffeo.cli.app import app
from diffeo.errors import ConfigError, DataError
from diffeo.tables import Report, Table, compare, fit_table, report
from diffeo.tables.likelihoods import Reason, calibration, calibrations, gap, nats, ranks, rarest
from diffeo.tables.scores import Scores

HOSTILE = "<script>alert(1)</script>"
LONG = "a_name_without_a_blank_" * 8


class Normals:
    """What a model of independent normal columns expects of each."""

    def __init__(self, *names: str):
        self.names = names

    def pits(self, table: Table, seed: int) -> np.ndarray:
        return stats.norm.cdf(np.stack([table.column(name) for name in self.names], 1))


def rows_of(n: int, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return Table.of({"x": x, "count": rng.poisson(3, n), "y": x + rng.normal(size=n), "same": np.full(n, 7)})


@pytest.fixture(scope="module")
def fitted():
    table = rows_of(600)
    flow, result = fit_table(table, max_steps=40)
    return flow, result, table


@pytest.fixture(scope="module")
def found(fitted) -> Report:
    flow, _, table = fitted
    return report(flow, table, columns=Normals("x", "y"))


# -- its figures ------------------------------------------------------------------------------------


def test_the_held_out_rows_are_those_of_the_fit(fitted, found: Report):
    _, result, _ = fitted
    assert found.comparison.rows == {"real": 540, "synthetic": 540, "test": 60}
    model, gaussian, mixture = found.nats
    assert model.mean == pytest.approx(result.baselines["flow"], abs=1e-6)
    assert gaussian.mean == pytest.approx(result.baselines["gaussian"], abs=0.05)  # other draws of noise
    assert gaussian.gain == pytest.approx(model.mean - gaussian.mean)
    assert (gaussian.name, mixture.name) == ("a Gaussian", "a mixture of Gaussians")
    assert found.gap is not None
    assert found.gap.held_out == pytest.approx(model.mean)
    assert found.notes == ()


def test_of_another_table_all_rows_count_as_held_out(fitted):
    flow, *_ = fitted
    other = report(flow, rows_of(600, seed=1))  # as many rows, and none that the fit has seen
    assert other.gap is None
    assert other.comparison.rows == {"real": 600, "synthetic": 600}
    assert all(row.held_out for row in other.rare)
    assert any("not known" in note for note in other.notes)
    assert len(other.nats) == 3


def test_rows_held_out_may_be_given(fitted):
    flow, _, table = fitted
    told: list[str] = []
    given = report(flow, table, test=rows_of(200, seed=2), rows=300, target="y", told=told.append)
    assert given.comparison.rows == {"real": 300, "synthetic": 300, "test": 200}
    assert given.comparison.efficacy is not None
    assert given.comparison.efficacy.target == "y"
    assert given.gap is not None
    assert not any(row.held_out for row in given.rare)
    assert told[:2] == ["reading", "scoring"]


def test_a_model_given_columns_draws_at_the_rows_of_the_table():
    table = rows_of(300)
    flow, _ = fit_table(table.drop(["same"]), given=["x"], max_steps=10)
    found = report(flow, table)
    assert [column.name for column in found.comparison.columns] == ["x", "count", "y"]
    assert found.comparison.columns[0].distance == 0
    assert found.schema[1][:2] == ("x", "given")


def test_a_weighted_model_is_held_against_weighted_rows():
    table = rows_of(400)
    table = Table.of(
        {**{name: table.column(name) for name in ("x", "y")}, "w": (table.column("x") > 0) + 0.0}
    )
    flow, _ = fit_table(table, weights="w", max_steps=10)
    found = report(flow, table)
    [x, _] = found.comparison.columns
    assert x.bars[0] > 0  # rows without weight are not among the real ones


def test_the_rarest_rows_come_with_the_columns_that_make_them_rare(found: Report):
    scores = [row.log_prob for row in found.rare]
    assert scores == sorted(scores)
    assert len(found.rare) == 10
    assert {name for row in found.rare for name in (r.column for r in row.reasons)} <= {"x", "count", "y"}


def normal(table: Table) -> np.ndarray:
    return stats.norm.logpdf(np.stack([table.column(name) for name in ("x", "y")], 1)).sum(1)


def test_a_reason_is_what_other_values_in_its_place_gain():
    x, y = np.full(50, 0.1), np.full(50, -0.2)
    x[7], y[30] = 9.0, 5.0
    odd = Table.of({"x": x, "y": y})
    scores = Scores(normal(odd), None, None)
    first, second = rarest(normal, odd, scores, x > 1, np.arange(50) + 100, seed=0, most=2)
    assert (first.row, first.held_out, first.quantile) == (108, True, None)
    assert [(reason.column, reason.value) for reason in first.reasons] == [("x", "9")]
    assert first.reasons[0].nats == pytest.approx(
        (9**2 - 0.1**2) / 2, abs=0.1
    )  # but for what the odd rows gain
    assert (second.row, second.held_out) == (131, False)
    assert [(reason.column, reason.value) for reason in second.reasons] == [("y", "5")]


def test_what_is_impossible_has_reasons_and_what_no_column_explains_has_none():
    def score(table: Table) -> np.ndarray:
        level = np.array(table.column("level").to_pylist(), dtype=object)
        return np.where(level == "never", -np.inf, -1.0)

    levels = pa.array(["never", None, *["often"] * 30])
    table = Table({"level": levels, "x": np.arange(32.0)})
    first, second = rarest(
        score, table, Scores(score(table), None, None), np.zeros(32, bool), np.arange(32), seed=0, most=2
    )
    assert [(reason.column, reason.value, reason.nats) for reason in first.reasons] == [
        ("level", "never", math.inf)
    ]
    assert second.reasons == ()


def test_calibration_is_the_distance_of_pits_from_uniform():
    pits = np.random.default_rng(0).beta(1.3, 1, 400)
    found = calibration("x", pits)
    expected = stats.kstest(pits, "uniform")
    assert found.distance == pytest.approx(expected.statistic)
    assert found.distance > found.chance
    assert sum(found.shares) == pytest.approx(1)
    assert stats.kstwobign.sf(found.chance * 400**0.5) == pytest.approx(0.05, abs=0.001)
    bad, good = calibrations(Normals("x", "y"), Table.of({"x": rows_of(400).column("x"), "y": pits}), 0)
    assert (good.name, bad.name) == ("x", "y")
    assert good.distance < good.chance


def test_scores_are_ranked_among_those_of_draws():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=300), rng.normal(size=700)
    found = ranks(one, other)
    assert found.distance == pytest.approx(stats.ks_2samp(one, other).statistic)
    assert found.chance == pytest.approx(1.358 * math.sqrt(1 / 300 + 1 / 700), rel=1e-3)
    assert ranks(one - 3, other).shares[0] > 0.9


def test_nats_and_gap_are_means_with_their_errors():
    rng = np.random.default_rng(0)
    model = rng.normal(size=200)
    plain = model - 1 + 0.1 * rng.normal(size=200)
    lost = np.append(model, -np.inf)
    found = nats({"model": lost, "plain": np.append(plain, 0.0)})
    assert found[0].mean == pytest.approx(model.mean())
    assert found[0].error == pytest.approx(stats.sem(model))
    assert found[0].lost == 1
    assert found[1].gain == pytest.approx((model - plain).mean())
    assert found[1].gain_error == pytest.approx(stats.sem(model - plain))
    known = gap(model + 1, lost)
    assert known.gap == pytest.approx(1)
    assert known.error == pytest.approx(math.sqrt(2) * stats.sem(model))


def test_the_figures_are_written_as_json(found: Report, tmp_path: Path):
    found.write(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert found.comparison.detection is not None
    assert read["comparison"]["detection"]["score"] == found.comparison.detection.score
    assert read["nats"][0]["mean"] == found.nats[0].mean
    assert len(read["rare"]) == 10
    assert set(read) == set(found.to_json())


def test_what_is_not_finite_is_null_in_json(found: Report, tmp_path: Path):
    rare = replace(found.rare[0], log_prob=-math.inf)
    replace(found, rare=(rare,)).write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["rare"][0]["log_prob"] is None


def test_it_is_the_same_by_seed(fitted):
    flow, _, table = fitted
    torn = [report(flow, table, rows=200, seed=seed).to_json() for seed in (3, 3, 4)]
    assert torn[0] == torn[1] != torn[2]


def test_what_cannot_be_reported(fitted, tmp_path: Path):
    flow, _, table = fitted
    with pytest.raises(ConfigError, match="rows=0"):
        report(flow, table, rows=0)
    with pytest.raises(DataError, match="no column count in this table|'count'"):
        report(flow, table.drop(["count"]))
    with pytest.raises(DataError, match="no column 'nothing' in this table"):
        report(
            flow,
            table,
            target="nothing",
            told=lambda stage: pytest.fail(stage) if stage != "reading" else None,
        )
    with pytest.raises(ConfigError, match="not fitted to a table"):
        report(diffeo.presets.NSF(features=2).build(), table)


# -- the command ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["report.html", "report.json"])
def test_the_command_writes_what_python_does(fitted, found: Report, tmp_path: Path, name: str):
    flow, _, table = fitted
    diffeo.save(flow, tmp_path / "model.safetensors")
    table.write(tmp_path / "table.parquet")
    arguments = ["report", str(tmp_path / "model.safetensors"), str(tmp_path / "table.parquet")]
    result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / name), "--rows", "200", "--seed", "3"])
    assert result.exit_code == 0, result.output
    assert "C2ST" in result.output
    expected = report(flow, table, rows=200, seed=3)
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert text == expected.html() if name.endswith("html") else json.loads(text) == expected.to_json()


def test_the_command_refuses_before_it_works(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    result = CliRunner().invoke(app, ["report", "model", "table", "-o", str(tmp_path / "report.txt")])
    assert result.exit_code == 2
    assert "name it .html or .json" in result.output
    result = CliRunner().invoke(app, ["report", "model", "table", "-o", str(tmp_path / "no" / "report.html")])
    assert result.exit_code == 2
    assert "does not exist" in result.output


# -- the page ---------------------------------------------------------------------------------------


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
def written(found: Report, tmp_path_factory) -> Path:
    """The page of a report on hostile tables."""
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
