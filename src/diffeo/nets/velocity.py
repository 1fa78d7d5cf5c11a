"""The field of a continuous flow: a smooth net that knows its trace in closed form."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from diffeo.functional.far import within
from diffeo.functional.linearize import trace
from diffeo.functional.traces import Traced
from diffeo.nets.smooth import SmoothLayers


class VelocityMLP(SmoothLayers, Traced):
    """A ``SmoothMLP`` whose trace costs one more product of its middle layer, for any D.

    With two hidden layers of slopes a and b the Jacobian is ``C diag(b) B diag(a) A``, whose trace is
    the bilinear form ``b' M a`` with ``M = B * (A C)'``, elementwise: the same M for every row. With one
    hidden layer it is ``sum_j a_j (A C)_jj``. Deeper nets, and those with a ``reach``, take D products.

    Its arguments are those of ``SmoothMLP``.

    Example:
        >>> import torch
        >>> value, trace = VelocityMLP(2, 2, (16, 16)).with_trace(torch.zeros(5, 2))
        >>> trace.shape
        torch.Size([5])
    """

    def with_trace(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if len(self.activations) not in (1, 2) or self.reach:
            value, product = self.linearize(x, context)
            return value, trace(product, x)
        first, *middle, last = self.linears
        h, a = self.bends[0].with_slope(self._first(within(x), context))
        if not middle:
            return last(h), a @ (first.weight * last.weight.T).sum(1)
        loops = middle[0].weight * (first.weight @ last.weight).T
        h, b = self.bends[1].with_slope(middle[0](h))
        return last(h), (F.linear(a, loops) * b).sum(-1)
