"""A conditional density: what y may be, given c, where a regression would give one number.

python examples/conditional.py
"""

import torch

import diffeo

# Two branches, y = sin(3c) and its mirror image, and noise that grows with |c|.
torch.manual_seed(0)
c = torch.rand(6000, 1) * 4 - 2
branch = (torch.rand(6000, 1) < 0.5).float() * 2 - 1
y = branch * torch.sin(3 * c) + (0.05 + 0.1 * c.abs()) * torch.randn(6000, 1)

flow = diffeo.presets.NSF(features=1, context=1, layers=2, hidden=32, blocks=1).build()
report = diffeo.fit(flow, y, c, max_seconds=7)
print(f"{report.steps} steps, held-out log p(y | c): {report.valid:.3f} nats")

# One context, many samples: (samples, contexts, event).
at = torch.tensor([[-0.5], [0.5], [1.05]])
draws = flow.sample(2000, at, generator=torch.Generator().manual_seed(0))
for i, value in enumerate(at[:, 0].tolist()):
    low, middle, high = draws[:, i, 0].quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    print(f"c = {value:5.2f}: 5 % {low:6.2f}, median {middle:6.2f}, 95 % {high:6.2f}")

# At one context it is a torch distribution: c = 0.5 has two likely values of y and an unlikely mean.
given = flow.distribution(torch.tensor([0.5]))
for value in (-0.997, 0.0, 0.997):
    print(f"log p(y = {value:6.3f} | c = 0.5) = {given.log_prob(torch.tensor([value])).item():6.2f}")
