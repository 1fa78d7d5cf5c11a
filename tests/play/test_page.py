"""The page that plays: its JavaScript is the flow, to round-off; slider and point do what they say."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path

import pytest
import torch
from cases import stirred
from play.hand import choose, drag, picture, shown
from torch import nn

import diffeo
from diffeo import presets
from diffeo.bases import Normal
from diffeo.bijections import (
    LU,
    ActNorm,
    Autoregressive,
    Chain,
    Coupling,
    Permute,
    Pointwise,
    Reverse,
    Standardize,
)
from diffeo.elementwise import Additive, Affine, RationalQuadratic
from diffeo.interop import browser_json
from diffeo.nets import MADE, MLP, ResidualMLP
from diffeo.plots import COLORS, DARK

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MODELS = ("pinwheel", "moons", "peaks")
SMALL = {"layers": 2, "hidden": 8, "blocks": 1}


def spline(bins=5):
    return RationalQuadratic(bins, 2.5)


def by_hand():
    """The parts that no preset has."""
    parts = [
        ActNorm((3,)),
        Permute([2, 0, 1]),
        Autoregressive(MADE(3, 14, (8, 6)), spline(), order=[1, 2, 0]),
        Chain([Reverse(3), LU(3, bias=False)]),
        Coupling([True, False, True], ResidualMLP(2, 1, 8, 1), Additive()),
        Pointwise(Affine(max_scale=3.0), (3,)),
        Coupling([False, True, False], MLP(1, 4, ()), Affine()),
    ]
    return diffeo.Flow(Chain(parts), Normal((3,)))


FLOWS = {
    "NICE": lambda: presets.NICE(features=2, hidden=(8,)).build(),
    "RealNVP": lambda: presets.RealNVP(features=2, layers=3, hidden=(8, 8)).build(),
    "CouplingNSF": lambda: presets.CouplingNSF(features=3, bins=4, **SMALL).build(),
    "MAF": lambda: presets.MAF(features=2, layers=2, hidden=(8,)).build(),
    "NSF": lambda: presets.NSF(features=2, bins=4, **SMALL).build(),
    "NSF of one column": lambda: presets.NSF(features=1, bins=4, **SMALL).build(),
    "one spline": lambda: diffeo.Flow(Chain([Standardize((1,)), Pointwise(spline(), (1,))]), Normal((1,))),
    "by hand": by_hand,
}


# -- the models that come with it ----------------------------------------------------------------------------


def shipped(name: str) -> dict:
    text = (DOCS / "play" / f"{name}.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix(f'DiffeoPlay.models["{name}"] = ').removesuffix(";\n"))


def rebuilt(name: str) -> diffeo.Flow:
    """The shipped model as a flow: the script's architecture with the file's numbers."""
    script = runpy.run_path(str(ROOT / "examples" / "play_model.py"))
    flow = script[{"pinwheel": "splines", "moons": "affine", "peaks": "line"}[name]]().double()
    with torch.no_grad():
        for part, layer in zip(flow.bijection, shipped(name)["flow"]["layers"], strict=True):
            fill(part, layer)
    return flow.eval()


def fill(part: nn.Module, layer: dict) -> None:
    lists = {k: v for k, v in layer.items() if isinstance(v, list) and k != "net"}
    number = {k: torch.tensor(v, dtype=torch.float64) for k, v in lists.items()}
    if isinstance(part, Standardize | ActNorm):
        part.loc.copy_(number["loc"])
        part.log_scale.copy_(number["log_scale"])
    elif isinstance(part, LU):
        log_diagonal, bound = number["upper"].diagonal().log(), math.log(1000.0)
        part.weight.copy_(number["lower"].tril(-1) + number["upper"].triu(1))
        part.log_diagonal.copy_(log_diagonal / (1 - log_diagonal.abs() / bound))
        part.bias.copy_(number["bias"])
    elif isinstance(part, Coupling):
        for dense, numbers in zip([*part.net.layers, part.net.output], layer["net"], strict=True):
            dense.weight.copy_(torch.tensor(numbers["weight"], dtype=torch.float64))
            dense.bias.copy_(torch.tensor(numbers["bias"], dtype=torch.float64))
    else:
        assert isinstance(part, Pointwise)
        part.params.copy_(number["params"])


# -- tests without a browser ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_shipped_models_are_small_and_of_the_script(name):
    assert (DOCS / "play" / f"{name}.js").stat().st_size < 60_000
    assert f"play/{name}.js" in (DOCS / "play.md").read_text(encoding="utf-8")
    again, layers = json.loads(browser_json(rebuilt(name)))["layers"], shipped(name)["flow"]["layers"]
    for one, other in zip(again, layers, strict=True):
        for side in ("lower", "upper"):  # whose diagonal went through a logarithm
            torch.testing.assert_close(torch.tensor(one.pop(side, 0)), torch.tensor(other.pop(side, 0)))
    assert again == layers


def test_the_colors_are_those_of_the_pictures():
    style = (DOCS / "play" / "play.css").read_text(encoding="utf-8")
    for name in ("blue", "orange", "green"):
        assert f"--play-{name}: {COLORS[name]};" in style
        assert style.count(f"--play-{name}: {DARK[name]};") == 2  # chosen on the page, or the system's


# -- in the browser ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluate(browser):
    """flow.js alone: ``evaluate(json, points, way)`` gives values, log-dets and, of data, log-densities."""
    page = browser.new_page()
    page.add_script_tag(path=str(DOCS / "play" / "flow.js"))
    script = """([text, points, way]) => {
        const flow = new DiffeoPlay.Flow(JSON.parse(text));
        const done = points.map((point) => flow[way](point));
        const logProb = way === "toLatent" ? points.map((point) => flow.logProb(point)) : [];
        return [done.map(({ value }) => Array.from(value)), done.map(({ logDet }) => logDet), logProb];
    }"""

    def run(text: str, points: torch.Tensor, way: str) -> list[torch.Tensor]:
        return [
            torch.tensor(t, dtype=torch.float64) for t in page.evaluate(script, [text, points.tolist(), way])
        ]

    yield run
    page.close()


@pytest.mark.parametrize("name", [*FLOWS, *MODELS])
def test_the_mathematics_is_the_flows(name, evaluate):
    flow = (stirred(FLOWS[name]()) if name in FLOWS else rebuilt(name)).double()
    text = browser_json(flow)
    if name in MODELS:
        text = json.dumps(shipped(name)["flow"])
    points = 2 * torch.randn(200, *flow.event_shape, dtype=torch.float64)
    with torch.no_grad():
        z, log_det = flow.bijection(points)
        own = evaluate(text, points, "toLatent")
        for mine, theirs in zip(own, (z, log_det, flow.log_prob(points)), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
        x, log_det = flow.bijection.inverse(points)
        value, own_log_det, _ = evaluate(text, points, "toData")
        torch.testing.assert_close(value, x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(own_log_det, log_det, rtol=1e-9, atol=1e-9)
    assert log_det.std() > 0 or name == "NICE"  # else little was tested


# Where the point is dragged to, in shares of the canvas, and between what its z should then lie.
GOALS = {"pinwheel": ((0.6, 0.3), (0.2, 1.0), (0.8, 2.0)), "peaks": ((0.7, 0.3), (0.0, 1.5))}


@pytest.mark.parametrize("name", GOALS)
def test_a_point_dragged_lands_where_the_flow_says(page, name):
    choose(page, name)
    goal, *ranges = GOALS[name]
    drag(page, 0, (0.4, 0.6), goal)
    z = torch.tensor(shown(page, "z"), dtype=torch.float64)
    assert [low < v < high for v, (low, high) in zip(z, ranges, strict=True)] == [True] * len(z)
    assert z[0] != 0.8  # where it starts
    flow = rebuilt(name)
    x, log_det = flow.bijection.inverse(z)
    close = {"rtol": 0, "atol": 6e-5}  # four decimals are shown
    torch.testing.assert_close(torch.tensor(shown(page, "x")).double(), x, **close)
    torch.testing.assert_close(torch.tensor(shown(page, "log-det")).double(), log_det[None], **close)
    torch.testing.assert_close(
        torch.tensor(shown(page, "log-prob")).double(), flow.log_prob(x)[None], **close
    )


def test_a_point_dragged_in_the_data_shows_its_latent(page):
    drag(page, 2, (0.5, 0.5), (0.35, 0.62))
    x = torch.tensor(shown(page, "x"), dtype=torch.float64)
    flow = rebuilt("pinwheel")
    z = torch.tensor(shown(page, "z")).double()
    torch.testing.assert_close(z, flow.to_latent(x), rtol=0, atol=6e-5)
    torch.testing.assert_close(shown(page, "log-prob")[0], flow.log_prob(x).item(), rtol=0, atol=6e-5)


def drawn_grid(page) -> torch.Tensor:
    """Where the panel of the chosen layer draws the grid's points, which it draws first; 14 lines of 97."""
    script = """() => {
        const { view, point, t, root } = DiffeoPlay.page;
        const [xs, ys] = [[], []];
        view.stage.toX = (value) => (xs.push(value), value);
        view.stage.toY = (value) => (ys.push(value), value);
        view.draw(t, point, DiffeoPlay.colors(root));
        delete view.stage.toX;
        delete view.stage.toY;
        return [xs.slice(0, 1358), ys.slice(0, 1358)];
    }"""
    return torch.tensor(page.evaluate(script), dtype=torch.float64).T


@torch.no_grad()
def carried_grid(flow: diffeo.Flow, t: float) -> torch.Tensor:
    """The same by the flow: halfway between two layers, halfway between their outputs."""
    along, across = (
        torch.linspace(-3, 3, 97).double().repeat(7),
        torch.arange(-3.0, 4.0).repeat_interleave(97),
    )
    z = torch.cat([torch.stack([along, across], -1), torch.stack([across, along], -1)])
    layers = [z]
    for part in reversed(flow.bijection.parts):
        layers.append(part.inverse(layers[-1])[0])
    before = min(int(t), len(layers) - 2)
    return torch.lerp(layers[before], layers[before + 1], t - before)


@pytest.mark.parametrize("t", [0, 5.5, 6, 11])
def test_the_slider_carries_every_point_as_the_flow_does(page, t):
    page.locator("#play input[type=range]").fill(str(t))
    grid = carried_grid(rebuilt("pinwheel"), t)
    torch.testing.assert_close(drawn_grid(page), grid, rtol=1e-5, atol=1e-5)  # kept in float32


def test_the_slider_redraws_and_says_where_it_is(page):
    page.wait_for_function("DiffeoPlay.page.view.data.shade", timeout=60_000)
    slider = page.locator("#play input[type=range]")
    slider.fill("0")
    assert "Latent" in page.locator(".play-step").inner_text()
    first, data = picture(page, 1), picture(page, 2)
    slider.fill("5.5")
    assert "Layer 6 of 11: coupling: column 2 moves" in page.locator(".play-step").inner_text()
    middle = picture(page, 1)
    slider.press("ArrowRight")
    assert slider.input_value() == "5.7"
    slider.press("End")
    assert "Data: after all 11 layers" in page.locator(".play-step").inner_text()
    assert len({first, middle, picture(page, 1)}) == 3
    assert picture(page, 2) == data  # the panel of the data stays


# Clicks Play and says what the button then reads, every layer shown on the way, and the button at the end.
PLAY = """(button) => new Promise((resolve) => {
    const { page } = DiffeoPlay;
    const [seen, { show, stop }] = [[], page];
    page.show = (t) => (show.call(page, t), seen.push(page.t));
    button.click();
    const started = button.textContent;
    page.stop = () => (stop.call(page), resolve([started, seen, button.textContent]));
})"""


def test_play_goes_to_the_end_and_stops(page):
    choose(page, "peaks")
    started, seen, ended = page.get_by_role("button", name="Play").evaluate(PLAY)
    assert (started, ended) == ("Pause", "Play")
    assert seen[0] == 0  # from the start, as it stood at the end
    assert seen == sorted(seen)
    assert seen[-1] == 2
    assert page.locator("#play input[type=range]").input_value() == "2"


def test_a_second_click_stops_the_play(page):
    twice = "(button) => [0, 1].map(() => (button.click(), button.textContent))"
    assert page.get_by_role("button", name="Play").evaluate(twice) == ["Pause", "Play"]
    assert page.evaluate("DiffeoPlay.page.playing") == 0


def test_arrow_keys_move_the_point(page):
    start = shown(page, "z")
    canvas = page.locator("#play canvas").first
    canvas.press("ArrowRight")
    small_step = shown(page, "z")[0] - start[0]
    canvas.press("Shift+ArrowRight")
    assert small_step > 0.01
    assert shown(page, "z")[0] - start[0] == pytest.approx(6 * small_step, abs=2e-3)
    canvas.press("ArrowUp")
    assert shown(page, "z")[1] > start[1]
