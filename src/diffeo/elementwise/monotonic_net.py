"""A monotone map whose slope is a neural net."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffeo.elementwise.continued import Continued, check_bound
from diffeo.errors import ConfigError
from diffeo.functional.convergence import captured
from diffeo.functional.quadrature import clenshaw_curtis

LOG_MAX_SLOPE = math.log(1e3)
FEWEST, MOST, CAPTURED = 16, 512, 64
"""Intervals of the quadrature: to start with, at most, and where Python must not branch on values."""
BLOCK = 8192
"""How many scalars are integrated at once, which bounds the memory of large batches."""


class MonotonicNet(Continued, nn.Module):
    """``y = shift + integral from 0 to x of exp(g(t, h)) dt`` with a small net g, unconstrained.

    The slope is any positive smooth function, given by a net whose weights all scalars share, and which each
    scalar's parameters h steer. The most flexible family, and the slowest.

    Formula: ``log dy/dx = c tanh(g(x, h) / c)`` with c = log 1000, on ``[-bound, bound]``, and constant
    outside. The integral is by Clenshaw and Curtis's rule with 16 intervals, and twice as many, up to 512,
    for those scalars where the rule with half of them differs by more than a tenth of the square root of
    round-off: errors square as intervals double, as the net is analytic. The slope is a node of the rule.

    Params: the shift, in the units of x, and the net's ``embedding`` inputs h. The net's last layer starts at
    zero, so that at first the family is a shift whatever h is; with zero parameters, the identity.
    Domain: the whole line. Limits: slopes in (0.001, 1000). Cost: 17 passes of the small net, or more; the
    inverse solves for x, some ten times that.

    Args:
        embedding: how many parameters the net sees besides x, positive.
        hidden: widths of the net's hidden layers, at least one; hyperbolic tangents between them.
        bound: half the box, in the units of x, positive.

    Shape:
        x: ``(*batch,)``, params: ``(*batch, 1 + embedding)``; both results: ``(*batch,)``.

    Raises:
        ConfigError: for a value out of its range.
        NotConverged: by ``inverse``, where a y cannot be reached to round-off.

    References:
        Wehenkel and Louppe (2019), *Unconstrained monotonic neural networks*, equations 1 and 5. Theirs is
        ELU + 1 of the net, on the whole line, with a fixed number of nodes.

    Example:
        >>> import torch
        >>> from diffeo.elementwise import MonotonicNet
        >>> family = MonotonicNet(embedding=3, hidden=(8,))
        >>> x, params = torch.tensor([-1e6, 0.5, 30.0]), torch.zeros(3, family.num_params)
        >>> torch.allclose(family.forward(x, params)[0], x)
        True
    """

    def __init__(self, embedding: int = 16, hidden: Sequence[int] = (32, 32), bound: float = 4.0):
        super().__init__()
        if not 1 <= embedding <= 4096:
            raise ConfigError(f"embedding must be 1 to 4096, not {embedding}.")
        if not hidden or min(hidden) < 1:
            raise ConfigError(f"hidden must be positive widths, at least one, not {tuple(hidden)}.")
        check_bound(bound)
        self.embedding, self.hidden, self.bound = embedding, tuple(hidden), float(bound)
        self.given = nn.Linear(embedding, self.hidden[0])
        self.place = nn.Parameter(torch.randn(self.hidden[0]))  # what x itself adds to the first layer
        self.inner = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(self.hidden))
        self.last = nn.Linear(self.hidden[-1], 1)
        for p in self.last.parameters():
            nn.init.zeros_(p)

    @property
    def num_params(self) -> int:
        return 1 + self.embedding

    def within(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        params = params.expand(*x.shape, self.num_params)
        given = self.given(params[..., 1:]).reshape(-1, self.hidden[0])
        blocks = zip(x.reshape(-1).split(BLOCK), given.split(BLOCK), strict=True)
        parts = [self._mean(*block, CAPTURED if captured() else FEWEST) for block in blocks]
        mean, log_slope = (torch.cat(part).reshape(x.shape) for part in zip(*parts, strict=True))
        return params[..., 0] + x * mean, log_slope

    def _mean(self, x: Tensor, given: Tensor, intervals: int) -> tuple[Tensor, Tensor]:
        """The mean slope between 0 and x, and the logarithm of the slope at x."""
        nodes, weights = clenshaw_curtis(intervals, x)
        log_slopes = self._log_slope(x.unsqueeze(-1) * (0.5 * (1 + nodes)), given.unsqueeze(-2))
        slopes = log_slopes.exp()
        mean = slopes @ (0.5 * weights)
        log_slope = log_slopes[:, 0]
        if intervals >= MOST or captured():
            return mean, log_slope
        with torch.no_grad():
            coarse = slopes[:, ::2] @ (0.5 * clenshaw_curtis(intervals // 2, x)[1])
            rough = (mean - coarse).abs() > 0.1 * math.sqrt(torch.finfo(x.dtype).eps) * mean
            index = rough.nonzero().squeeze(-1)
        if len(index):
            finer = self._mean(x[index], given[index], 2 * intervals)[0]
            mean = mean.index_put((index,), finer)
        return mean, log_slope

    def _log_slope(self, x: Tensor, given: Tensor) -> Tensor:
        h = torch.tanh(torch.addcmul(given, x.unsqueeze(-1), self.place))
        for layer in self.inner:
            h = torch.tanh(layer(h))
        raw = F.linear(h, self.last.weight, self.last.bias).squeeze(-1)
        return LOG_MAX_SLOPE * torch.tanh(raw / LOG_MAX_SLOPE)

    def extra_repr(self) -> str:
        return f"embedding={self.embedding}, hidden={self.hidden}, bound={self.bound}"
