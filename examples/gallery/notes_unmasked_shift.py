"""A coupling that forgets to mask its shift.

A snippet that is often passed around writes an affine coupling in one line:

```text
y = mask * x + (1 - mask) * x * exp(s) + t          # wrong
y = mask * x + (1 - mask) * (x * exp(s) + t)        # right
```

The two differ in where one parenthesis closes. In the first the shift `t` also moves the half that the mask
was to keep. Then nothing holds any more: the inverse computes `s` and `t` from a half that has moved, and
the log-determinant `sum (1 - mask) s` lacks the derivative of that move. The shapes are right, the loss
goes down, and even goes lower than the truth allows: the map may now crowd points together at no charge,
and what it calls a density has a mass far above one.

On the left the kept column, before and after. In the middle the log-determinant as returned against the one
that autograd finds. On the right both trained by maximum likelihood on the same rows; no density can score
above the dashed line, the negative entropy, but for the noise of a sample. The snippet stops at 6 - log 2π
= 4.16 only because `tanh` bounds its scales. `check_bijection` refuses it at once.

    python examples/gallery/notes_unmasked_shift.py
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import diffeo
from diffeo import plots
from diffeo.bases import Normal
from diffeo.bijections import Bijection, Chain
from diffeo.targets import TOYS
from diffeo.testing import check_bijection


class Snippet(Bijection):
    """The coupling as it is passed around; mask is 1 for the half that is kept."""

    def __init__(self, mask):
        super().__init__((2,))
        self.register_buffer("mask", torch.tensor(mask))
        self.net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 4))

    def scale_and_shift(self, x):
        s, t = self.net(self.mask * x).chunk(2, -1)
        return (1 - self.mask) * torch.tanh(s), t  # the shift goes out as it comes

    def forward(self, x, context=None):
        s, t = self.scale_and_shift(x)
        return x * s.exp() + t, s.sum(-1)

    def inverse(self, y, context=None):
        s, t = self.scale_and_shift(y)
        return (y - t) * (-s).exp(), -s.sum(-1)


class Corrected(Snippet):
    def scale_and_shift(self, x):
        s, t = super().scale_and_shift(x)
        return s, (1 - self.mask) * t


plt.style.use([plots.STYLE, {"lines.markersize": 2.5}])
fig, (kept, determinants, training) = plt.subplots(1, 3, figsize=(10, 3.2))
toy = TOYS["moons"]
rows = toy.sample(4000, torch.Generator().manual_seed(0))
cells = torch.linspace(-20, 20, 401)[:-1] + 0.05
grid = torch.cartesian_prod(cells, cells)

for kind, color in ((Snippet, "orange"), (Corrected, "blue")):
    torch.manual_seed(0)
    layer, x = kind([1.0, 0.0]), torch.randn(300, 2)
    nn.init.normal_(layer.net[2].weight, std=0.6)  # as if it had been trained for a while
    with torch.no_grad():
        y, log_det = layer(x)
        back = (layer.inverse(y)[0] - x).abs().max()
    jacobians = torch.func.vmap(torch.func.jacrev(lambda v: layer(v)[0]))(x)  # noqa: B023
    exact = torch.linalg.slogdet(jacobians)[1].detach()
    kept.plot(*torch.stack([x[:, 0], y[:, 0]])[:, x[:, 0].argsort()], color=plots.COLORS[color])
    determinants.plot(exact, log_det, "o", color=plots.COLORS[color], label=kind.__name__.lower())
    print(f"{kind.__name__}: round trip off by {back:.1g}, log_det by {(log_det - exact).abs().max():.1g}")
    try:
        check_bijection(layer, capture=False)
        print("  check_bijection: nothing to say")
    except AssertionError as error:
        print(f"  check_bijection: {error}")

    masks = ([1.0, 0.0], [0.0, 1.0]) * 3
    flow = diffeo.Flow(Chain([kind(mask) for mask in masks]), Normal((2,)))
    report = diffeo.fit(
        flow, rows, max_steps=1500, optimizer=diffeo.train.OptimizerSettings(learning_rate=5e-3)
    )
    with torch.no_grad():
        mass = flow.log_prob(grid).double().exp().sum() * 0.1**2
    curve = [(point.step, point.valid) for point in report.curves]
    training.plot(*zip(*curve, strict=True), color=plots.COLORS[color])
    print(f"  trained: {report.valid:.2f} nats claimed, mass of the density on [-20, 20]^2: {mass:.2f}")

print(f"  the best there is: {-toy.entropy:.2f} nats, mass 1")
kept.set(xlabel="kept column of x", ylabel="kept column of y")
determinants.set(xlabel="log-det by autograd, nats", ylabel="log-det returned, nats")
determinants.legend()
training.axhline(-toy.entropy, color=plots.COLORS["ink"], linestyle="--", linewidth=0.8, label="- entropy")
training.set(xlabel="step", ylabel="held-out log-likelihood, nats")
training.legend()
plots.save(fig, "notes_unmasked_shift.svg")
