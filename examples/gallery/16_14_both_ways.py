"""Fitting one density to another, both ways round.

How far a flow q is from a density p can be measured over p or over q, and the two differ:

```text
forward KL   E_p [log p(x) - log q(x)]    large where p has mass and q has none
reverse KL   E_q [log q(x) - log p(x)]    large where q has mass and p has none
```

The forward one needs samples of p and nothing else: it is maximum likelihood, or a student fitted to draws
of its teacher. The reverse one needs no sample, but the log-density of p up to a constant, with its
gradient: variational inference, or a student that draws and lets the teacher score what it drew.

With a flow too simple for the target (above: one linear layer, so q is a normal) the choice decides what is
lost. Forward KL covers everything, the empty space between included. Reverse KL is never punished for what
it does not visit. Which of its minima it ends in depends on where it starts: on one of the bumps it stays
there, at log(1 / 0.4) = 0.92 nats, since that bump holds 0.4 of the mass. That is the better fit by its own
measure; from a broad start it does not find it.

A rich flow (below) comes near the target both ways, if it starts broad. Started on one bump it takes in the
others late and in part. Its own loss says little of what is missing; the forward KL does, but needs
samples. That is why `fit_target` surveys the target by chains first.

    python examples/gallery/16_14_both_ways.py
"""

import matplotlib.pyplot as plt
import torch

import diffeo
from diffeo import plots, presets
from diffeo.bases import Normal
from diffeo.bijections import Chain, Standardize, Triangular
from diffeo.inference import ReverseKL
from diffeo.objectives import Likelihood
from diffeo.train import OptimizerSettings


class Teacher:
    """Three normal bumps: a density that can be drawn from and evaluated."""

    means = torch.tensor([[-2.0, -1.2], [2.0, -1.2], [0.0, 2.2]])
    scale, weights = 0.55, torch.tensor([0.4, 0.3, 0.3])

    def log_prob(self, x):
        bumps = torch.distributions.Normal(self.means.to(x), self.scale).log_prob(x[..., None, :]).sum(-1)
        return (bumps + self.weights.to(x).log()).logsumexp(-1)

    def sample(self, n, generator):
        which = self.weights.multinomial(n, replacement=True, generator=generator)
        return self.means[which] + self.scale * torch.randn(n, 2, generator=generator)


def linear():
    return diffeo.Flow(Chain([Standardize((2,)), Triangular(2)]), Normal((2,)))


def splines():
    return presets.CouplingNSF(features=2, layers=4, hidden=32).build()


@torch.no_grad()
def judge(flow):
    """Both divergences, over fresh draws of each."""
    x = teacher.sample(4000, torch.Generator().manual_seed(1))
    y = flow.sample(4000, generator=torch.Generator().manual_seed(2))
    forward = (teacher.log_prob(x) - flow.log_prob(x)).mean()
    reverse = (flow.log_prob(y) - teacher.log_prob(y)).mean()
    return float(forward), float(reverse)


teacher = Teacher()
noise = torch.randn(8_000, 2, generator=torch.Generator().manual_seed(0))
# Reverse KL draws from the flow: rows only say where that starts, since `Standardize` is set from them.
ways = {
    "forward KL": (Likelihood(), teacher.sample(8_000, torch.Generator().manual_seed(0))),
    "reverse KL, broad start": (ReverseKL(teacher), 2 * noise),
    "reverse KL, start on a bump": (ReverseKL(teacher), teacher.means[0] + 0.5 * noise),
}
plt.style.use([plots.STYLE, {"savefig.dpi": 100}])
fig, axes = plt.subplots(2, 4, figsize=(9, 4.6))
for build, row in zip((linear, splines), axes, strict=True):
    plots.density(teacher, row[0], n=80)
    row[0].set(title="target", xlabel="x₁", ylabel="x₂")
    for (name, (objective, rows)), ax in zip(ways.items(), row[1:], strict=True):
        torch.manual_seed(0)
        flow = build()
        settings = OptimizerSettings(learning_rate=5e-3)
        diffeo.fit(flow, rows, objective=objective, max_steps=1000, batch_size=256, optimizer=settings)
        forward_kl, reverse_kl = judge(flow)
        print(f"{build.__name__:8s} {name:28s} forward {forward_kl:8.3f}, reverse {reverse_kl:6.3f} nats")
        plots.density(flow, ax, n=80)
        ax.set(title=f"{build.__name__}, {name}", xlabel="x₁", ylabel="x₂")
        ax.title.set_fontsize(8)
plots.save(fig, "16_14_both_ways.svg")
