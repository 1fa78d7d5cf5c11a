"""Paths of a continuous flow, curved and straight.

A continuous flow is a vector field `v(x, t)`: a point drifts along it from the data at t = 0 to a normal
draw at t = 1, or back. Any field that is smooth enough will do, since paths of one field never cross at one
moment, and the log-density changes along a path by the trace of the field's Jacobian.

Many fields lead from the same data to the same normal, and how they are trained decides which. Maximum
likelihood (FFJORD) looks at the ends alone. Flow matching regresses the field on straight lines between
data and noise paired at random; where such lines cross the field goes the mean way, so its own paths bend
(here toward the middle, and out again). When each batch is paired by optimal transport instead, lines
hardly cross and the paths come out nearly straight.

Above, the same 40 normal draws (orange) carried to data (blue) by the three. Below, each flow's density.
Printed: how much longer all paths together are than the straight lines between their ends, how often the
solver asks the field at its tolerance, and the nats that each misses of the truth. None of the three is
trained to the end here.

    python examples/gallery/notes_continuous.py
"""

import matplotlib.pyplot as plt
import torch

import diffeo
from diffeo import objectives, plots, presets
from diffeo.targets import TOYS

toy = TOYS["8gaussians"]
rows = toy.sample(10_000, torch.Generator().manual_seed(0))
fresh = toy.sample(500, torch.Generator().manual_seed(1))
z = torch.randn(40, 2, generator=torch.Generator().manual_seed(2))
times = torch.linspace(1, 0, 25)  # from latent to data


torch.manual_seed(0)
by_likelihood = presets.FFJORD(features=2).build()
diffeo.fit(by_likelihood, rows, max_steps=300, batch_size=256)
at_random = presets.FlowMatching(features=2).build()
diffeo.fit(at_random, rows, max_steps=1200, batch_size=256)
by_transport = presets.FlowMatching(features=2).build()
transport = objectives.FlowMatching(objectives.OptimalTransport(), power=2.0)
diffeo.fit(by_transport, rows, objective=transport, max_steps=1200, batch_size=256)
flows = {
    "maximum likelihood": by_likelihood,
    "matching, random pairs": at_random,
    "matching, optimal transport": by_transport,
}

plt.style.use([plots.STYLE, {"savefig.dpi": 100}])
fig, axes = plt.subplots(2, 3, figsize=(8, 5.4))
for (name, flow), (paths_ax, density_ax) in zip(flows.items(), axes.T, strict=True):
    standardize, field = flow.bijection.parts  # the last part is the continuous one
    with torch.no_grad():
        paths = field.trajectory(z, times, start=1.0)
        steps = paths.diff(dim=0).norm(dim=-1).sum(0)
        detour = steps.sum() / (paths[-1] - paths[0]).norm(dim=-1).sum() - 1
        gap = (toy.log_prob(fresh) - flow.log_prob(fresh)).mean()
        seen = field.diagnose(standardize.push(fresh[:100]))
        there = standardize.pull(paths.reshape(-1, 2)).reshape(paths.shape)  # in the data's own units
    print(f"{name}: {detour:.1%} longer than straight, {seen.evaluations:.0f} evaluations, ", end="")
    print(f"{gap:.3f} nats missing")
    plots.trajectories(there, paths_ax)
    paths_ax.set(title=name, xlabel="x₁", ylabel="x₂", xlim=(-5, 5), ylim=(-5, 5), aspect="equal")
    plots.density(flow, density_ax, limits=5.0, n=50)
    density_ax.set(xlabel="x₁", ylabel="x₂")
plots.save(fig, "notes_continuous.svg")
