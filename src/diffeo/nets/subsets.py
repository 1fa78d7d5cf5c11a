"""A masked net of columns of any kind, each of them modeled, given or hidden.

A masked net answers ``p(x_j | the columns before)`` for all columns in one pass. That is enough for a
density and for draws, but not for questions: what is before and what is asked changes from one to the next.
So a row's columns have three roles here. A *given* column is seen by all others, through a second,
unmasked entry. A *hidden* one is seen by none. The rest are modeled, each seeing those before it. Trained on
rows whose roles are drawn anew each time, one net has ``p(S | G)`` for any two sets of columns, in one pass.

Hidden columns are the wildcards of Liang et al. 2020, "Variable skipping for autoregressive range density
estimation"; the masks are those of ``ResMADE``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffeo.functional.layers import Layers
from diffeo.nets.masked import MaskedLinear, degrees
from diffeo.nets.mlp import check_sizes, zero_

REACH = 6.0
"""How far out on the normal scale a number is told from one farther out."""
_WAVES = 2.0
"""Frequency of the waves beside a number, which tell neighboring numbers apart."""
EMBEDDING = 16
"""Numbers that stand for a cell."""
_WIDTH = EMBEDDING + 5
"""What a column is to the net: its cell's numbers, four of its place, and whether it is not seen."""


class SubsetNet(nn.Module):
    """Outputs for every column of a mixed row, from those before it and those given.

    A column is known by a cell (a level, an atom, missing, "some number") and by a place on the line. Its
    outputs see given columns, whichever they are, and of the seen ones those before it.

    Args:
        cells: how many cells each column has, at least 1.
        outputs: how many outputs it has, at least 1.
        hidden: width of the residual stream.
        blocks: residual blocks.
        context: width of what is known of the given columns.
        dropout: in the blocks and the context, in [0, 1).

    Shape: cells and places ``(rows, D)``, ``seen`` and ``given`` likewise, 1 or 0, to
    ``(rows, sum(outputs))``. ``given`` may be None for none.

    References: Germain et al. 2015, "MADE"; Nash and Durkan 2019, section 4.2, for the residual blocks.

    Example:
        >>> net = SubsetNet([2, 3], [2, 3], hidden=8)
        >>> cells, places = torch.zeros(5, 2, dtype=torch.long), torch.zeros(5, 2)
        >>> net(cells, places, torch.ones(5, 2)).shape
        torch.Size([5, 5])
    """

    starts: Tensor
    most: Tensor

    def __init__(
        self,
        cells: Sequence[int],
        outputs: Sequence[int],
        hidden: int = 256,
        blocks: int = 2,
        context: int = 128,
        dropout: float = 0.0,
    ):
        super().__init__()
        check_sizes(hidden=hidden, context=context)
        D, self.features, self.dropout = len(cells), len(cells), dropout
        self.hidden, self.outputs = hidden, tuple(outputs)
        self.embedding = nn.Embedding(sum(cells), EMBEDDING)
        units = degrees(hidden, D, 1)
        entry = torch.arange(1, D + 1).repeat_interleave(_WIDTH)
        self.input = MaskedLinear(units, entry)
        self.first: Layers[MaskedLinear] = Layers(MaskedLinear(units, units) for _ in range(blocks))
        self.second: Layers[MaskedLinear] = Layers(MaskedLinear(units, units) for _ in range(blocks))
        self.output = MaskedLinear(torch.arange(D).repeat_interleave(torch.tensor(outputs)), units)
        zero_(self.output)
        self.given = nn.Sequential(
            nn.Linear(D * _WIDTH, context), nn.ReLU(), nn.Linear(context, context), nn.ReLU()
        )
        self.to_blocks: Layers[nn.Linear] = Layers(
            nn.Linear(context, hidden, bias=False) for _ in range(blocks + 1)
        )
        sizes = torch.tensor(cells)
        self.register_buffer("starts", sizes.cumsum(0) - sizes, persistent=False)
        self.register_buffer("most", sizes - 1, persistent=False)

    def entries(self, cells: Tensor, places: Tensor, seen: Tensor, first: int = 0) -> Tensor:
        """What the columns from ``first`` on are to the net, ``(rows, columns * width)``."""
        some = slice(first, first + cells.shape[-1])
        at = torch.minimum(cells.clamp(min=0), self.most[some]) + self.starts[some]
        z = places.clamp(-REACH, REACH).unsqueeze(-1)
        waves = torch.sin(_WAVES * z), torch.cos(_WAVES * z), torch.tanh(1.5 * _WAVES * z)
        seen = seen.unsqueeze(-1)
        known = torch.cat([self.embedding(at), z, *waves], -1) * seen
        return torch.cat([known, 1 - seen], -1).flatten(-2)

    def contexts(self, cells: Tensor, places: Tensor, given: Tensor | None) -> list[Tensor]:
        """What the given columns add to the stream and to each block; of none, one row for all."""
        if given is None:
            cells, places = cells[:1] * 0, places[:1] * 0
            given = places
        known = self.given(self.entries(cells, places, given))
        known = F.dropout(known, self.dropout, self.training)
        return [layer(known) for layer in self.to_blocks]

    def forward(self, cells: Tensor, places: Tensor, seen: Tensor, given: Tensor | None = None) -> Tensor:
        at_input, *at_blocks = self.contexts(cells, places, given)
        h = self.input(self.entries(cells, places, seen)) + at_input
        for first, second, c in zip(self.first, self.second, at_blocks, strict=True):
            u = F.relu(first(F.relu(h)) + c)
            h = h + second(F.dropout(u, self.dropout, self.training))
        return self.output(F.relu(h))

    def stepper(self, cells: Tensor, places: Tensor, given: Tensor | None) -> SubsetStepper:
        """The same pass for rows of which only the given columns are known yet, a column at a time."""
        return SubsetStepper(self, cells, places, given)


class SubsetStepper:
    """One pass of a ``SubsetNet`` in evaluation mode, cut into columns: the D steps together do its work."""

    def __init__(self, net: SubsetNet, cells: Tensor, places: Tensor, given: Tensor | None):
        self.net, self.column = net, 0
        self.at_input, *self.at_blocks = net.contexts(cells, places, given)
        rows, like = len(cells), net.output.weight
        D, H = net.features, net.hidden
        self.x = like.new_empty(rows, D * _WIDTH)
        self.active = [like.new_empty(rows, H) for _ in range(2 * len(net.first) + 1)]
        self.cuts = [max(0, min(H, -(d * H // -D))) for d in range(D + 1)]
        self.ends = [0, *torch.tensor(net.outputs).cumsum(0).tolist()]

    def __call__(self, cells: Tensor | None, places: Tensor | None, seen: Tensor | None) -> Tensor:
        """Take the column before (None at first), each ``(rows,)``; give the next one's outputs."""
        net, d = self.net, self.column
        self.column += 1
        if cells is not None and places is not None and seen is not None:
            new = net.entries(cells[:, None], places[:, None], seen[:, None], d - 1)
            self.x[:, (d - 1) * _WIDTH : d * _WIDTH] = new
        start, stop = self.cuts[d], self.cuts[d + 1]
        if stop > start:
            some = slice(start, stop)
            h = net.input.rows(start, stop, self.x[:, : d * _WIDTH]) + self.at_input[:, some]
            for i, (first, second) in enumerate(zip(net.first, net.second, strict=True)):
                before, between = self.active[2 * i], self.active[2 * i + 1]
                before[:, some] = F.relu(h)
                between[:, some] = F.relu(
                    first.rows(start, stop, before[:, :stop]) + self.at_blocks[i][:, some]
                )
                h = h + second.rows(start, stop, between[:, :stop])
            self.active[-1][:, some] = F.relu(h)
        return net.output.rows(self.ends[d], self.ends[d + 1], self.active[-1][:, :stop])
