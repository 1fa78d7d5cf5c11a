"""Three small flows for the page that plays (docs/play.md), each exported as numbers a browser can read.

Two flows of the plane and one of the line are fitted, their weights rounded to four decimals so that the
files stay small, and written into the current folder: pinwheel.js, moons.js, peaks.js. Those in docs/play
were made so. Your own flow needs none of this, only
``diffeo.interop.browser_json(flow)`` and the page's file button.

    python examples/play_model.py
"""

import json
from pathlib import Path

import torch

import diffeo
from diffeo.bases import Normal
from diffeo.bijections import LU, ActNorm, Chain, Coupling, Pointwise, Standardize
from diffeo.elementwise import Affine, RationalQuadratic
from diffeo.interop import browser_json
from diffeo.nets import MLP
from diffeo.targets import TOYS
from diffeo.train import OptimizerSettings


def splines(layers=5, hidden=(24, 24)):
    """Couplings of the plane by splines, with a linear map after each."""
    family, parts = RationalQuadratic(8, 3.5), [Standardize((2,))]
    for i in range(layers):
        parts += [Coupling([i % 2 == 0, i % 2 == 1], MLP(1, family.num_params, hidden), family), LU(2)]
    return diffeo.Flow(Chain(parts), Normal((2,)))


def affine(layers=8, hidden=(24, 24)):
    """Couplings of the plane that only scale and shift: RealNVP."""
    parts = [Standardize((2,))]
    for i in range(layers):
        parts += [Coupling([i % 2 == 0, i % 2 == 1], MLP(1, 2, hidden), Affine()), ActNorm((2,))]
    return diffeo.Flow(Chain(parts), Normal((2,)))


def line():
    """One increasing curve."""
    return diffeo.Flow(Chain([Standardize((1,)), Pointwise(RationalQuadratic(12, 4.0), (1,))]), Normal((1,)))


# Two peaks of different width and weight.
peaks = torch.distributions.MixtureSameFamily(
    torch.distributions.Categorical(torch.tensor([0.35, 0.65])),
    torch.distributions.Normal(torch.tensor([-1.5, 1.5]), torch.tensor([0.35, 0.8])),
)


@torch.no_grad()
def rounded(flow):
    """The flow in float64 with every number a decimal of four places, which is what the file then says."""
    flow.double()
    for values in [*flow.parameters(), *flow.buffers()]:
        if values.is_floating_point():
            values.copy_((values * 1e4).round() / 1e4)
    return flow.eval()


def write(name, title, note, flow, x, log_p, learning_rate=5e-3):
    settings = OptimizerSettings(learning_rate=learning_rate)
    report = diffeo.fit(flow, x[:20_000], max_steps=2500, batch_size=512, optimizer=settings)
    fresh, log_p = x[20_000:], log_p[20_000:]
    with torch.no_grad():
        before = (log_p - flow.log_prob(fresh)).mean().item()
        after = (log_p - rounded(flow).log_prob(fresh.double())).mean().item()
    model = json.dumps({"title": title, "note": note}, ensure_ascii=False)[:-1]
    text = f'DiffeoPlay.models["{name}"] = {model}, "flow": {browser_json(flow)}}};\n'
    Path(f"{name}.js").write_text(text, encoding="utf-8")
    print(
        f"{name}.js: {len(text.encode()) / 1000:.0f} kB, {report.steps} steps, "
        f"{before:.4f} nats from the truth, {after:.4f} once rounded"
    )


if __name__ == "__main__":
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    x = TOYS["pinwheel"].sample(30_000, generator)
    write(
        "pinwheel",
        "Pinwheel: spline couplings, 2-d",
        "Five couplings whose splines bend one column at a time, with a linear map after each.",
        *(splines(), x, TOYS["pinwheel"].log_prob(x)),
    )
    torch.manual_seed(0)
    x = TOYS["moons"].sample(30_000, generator)
    write(
        "moons",
        "Moons: affine couplings (RealNVP), 2-d",
        "Eight couplings that only scale and shift. Watch the thread between the moons: "
        "a map without tears cannot cut it, only make it thin.",
        *(affine(), x, TOYS["moons"].log_prob(x)),
    )
    torch.manual_seed(0)
    x = peaks.sample((30_000, 1))
    write(
        "peaks",
        "Two peaks: one spline, 1-d",
        "One increasing curve. Where it is steep, mass is spread thin: p(x) = p(z) / slope. "
        "Each band holds a tenth of the mass, on either side.",
        *(line(), x, peaks.log_prob(x).squeeze(-1)),
        learning_rate=2e-2,
    )
