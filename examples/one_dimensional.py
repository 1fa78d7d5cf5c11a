"""A one-dimensional flow, fitted twice: as a histogram and as a smooth spline.

Prince, *Understanding Deep Learning*, section 16.1 and figure 16.5: a density on the line is a simple
base density pushed through one increasing function, and fitting it means moving that function by
maximum likelihood.

    python examples/one_dimensional.py
"""

import math

import torch

import diffeo
from diffeo.bases import Normal, Uniform
from diffeo.bijections import Chain, Pointwise, Standardize
from diffeo.elementwise import PiecewiseLinear, RationalQuadratic
from diffeo.train import OptimizerSettings

# The truth: two bumps of different widths. Its entropy is the best negative log-likelihood there is.
truth = torch.distributions.MixtureSameFamily(
    torch.distributions.Categorical(torch.tensor([0.3, 0.7])),
    torch.distributions.Normal(torch.tensor([-2.0, 1.0]), torch.tensor([0.3, 0.8])),
)
torch.manual_seed(0)
x = truth.sample((4000, 1))
fresh = truth.sample((20_000, 1))
inside = fresh[(fresh.abs() < 5).all(-1)]

# A uniform base and a piecewise-linear map: the density is a histogram (figure 16.5).
histogram = diffeo.Flow(Pointwise(PiecewiseLinear(40, -5.0, 5.0), (1,)), Uniform((1,), -5.0, 5.0))
# A normal base and a rational-quadratic spline: smooth, and defined on the whole line.
spline = diffeo.Flow(Chain([Standardize((1,)), Pointwise(RationalQuadratic(16, 4.0), (1,))]), Normal((1,)))

settings = OptimizerSettings(learning_rate=2e-2)
for name, flow in (("histogram", histogram), ("spline", spline)):
    report = diffeo.fit(flow, x, max_steps=600, batch_size=512, optimizer=settings)
    with torch.no_grad():
        gap = (truth.log_prob(inside).squeeze(-1) - flow.log_prob(inside)).mean()
    print(f"{name:<10} {report.steps} steps, {gap:.4f} nats from the truth")

# Exact both ways: data to latent and back, and the slope between them is the density.
point = torch.tensor([[-2.0]])
z, log_det = spline.bijection(point)
back, log_det_back = spline.bijection.inverse(z)
print(f"x = -2 -> z = {z.item():.3f} -> x = {back.item():.3f}")
print(f"log-slopes {log_det.item():.3f} there and {log_det_back.item():.3f} back")
by_hand = -0.5 * z.item() ** 2 - 0.5 * math.log(2 * math.pi) + log_det.item()
print(f"log p(-2): {by_hand:.4f} by the formula, {spline.log_prob(point).item():.4f} by the flow")
