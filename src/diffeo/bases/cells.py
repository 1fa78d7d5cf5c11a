"""The density of mixed rows: discrete columns and numbers in one autoregressive product.

Each column is a choice among cells, and one of these, the *rest*, is a number with a density of its own: on
a normal scale, by a spline with a location and a scale. A point has four numbers for each column: its cell,
its place on the normal scale, and where values stand on a grid how far the ends of its own cell there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from diffeo.bases.base import Base
from diffeo.contracts import Initializable
from diffeo.elementwise import LocationScale, RationalQuadratic
from diffeo.functional.normal_cdf import log_normal_mass
from diffeo.nets.subsets import SubsetNet

CELL, PLACE, LOW, HIGH = range(4)
"""The numbers of a column in a point: its cell, its place, and how far below and above the place its cell on
a grid ends. Of a cell of many levels, ``LOW`` is the quantile that tells these apart."""
UNKNOWN = -1.0
"""The cell of a column that is not known: it is marginalized over."""
_FEWEST = 0.5
"""Rows that a cell is taken to have beyond those it has, when shares are set from rows."""


class CellColumn(Protocol):
    """What the density has to know of a column; ``encodings.cells`` has the kinds."""

    @property
    def cells(self) -> int:
        """How many cells there are."""
        ...

    @property
    def rest(self) -> int | None:
        """Which of them is a number with a density, if any."""
        ...

    @property
    def grid(self) -> bool:
        """Whether the rest has masses between two ends, not densities."""
        ...

    def settled(self, code: Tensor) -> Tensor:
        """Drawn codes ``(rows, 4)`` as their values are encoded: on the grid, in the atom that they hit."""
        ...

    def within(self, code: Tensor) -> Tensor:
        """Drawn codes ``(rows, 4)``, within the outermost values of the rows."""
        ...


class CellDensity(Base, Initializable):
    """Mixed rows: each column's cell by softmax given other columns, a number in the rest by a spline.

    The one base that is learned as a flow is: it takes what an encoding makes of a table's row, whatever its
    columns hold. ``log_prob`` is the joint log-likelihood; with roles for the columns (see ``SubsetNet``) it
    is that of any set of columns given any other, in one pass, and so are draws.

    Formula: ``log p(x) = sum_j log p(c_j | ...) + [c_j = rest] log p(z_j | ...)``, where ``c`` are cells, z
    is standard normal behind ``LocationScale(RationalQuadratic)``, and on a grid ``p(z)`` is the mass
    between two ends. A number on a grid that is an atom has both masses. The sum goes over modeled columns;
    a column in the cell -1 is not known and adds 0. The conditionals of one net need not agree with each
    other: ``p(a) p(b | a)`` and ``p(b) p(a | b)`` are as equal as training makes them.

    Cost: one pass of the net and a spline a number, either way.

    Args:
        columns: what each column is.
        hidden: width of the net.
        blocks: its residual blocks.
        context: width of what is known of given columns.
        bins: of each spline.
        max_scale: how far its location and scale may stretch.
        dropout: in [0, 1).
        given: columns that are always conditioned on, by number.

    Shape: points ``(*batch, D, 4)``, log-density ``(*batch,)``.

    References: Germain et al. 2015, "MADE"; Liang et al. 2020 for hidden columns; Durkan et al. 2019 for the
    splines.
    """

    initialized: Tensor
    always: Tensor

    def __init__(
        self,
        columns: Sequence[CellColumn],
        hidden: int = 256,
        blocks: int = 2,
        context: int = 128,
        bins: int = 8,
        max_scale: float = 10.0,
        dropout: float = 0.0,
        *,
        given: Sequence[int] = (),
    ):
        super().__init__((len(columns), 4))
        self.columns = tuple(columns)
        self.family = LocationScale(RationalQuadratic(bins), max_scale)
        cells = [c.cells for c in columns]
        outputs = [c.cells + (0 if c.rest is None else self.family.num_params) for c in columns]
        self.net = SubsetNet(cells, outputs, hidden, blocks, context, dropout)
        self.register_buffer("initialized", torch.tensor(False))
        always = torch.zeros(len(columns), dtype=torch.bool)
        always[list(given)] = True
        self.register_buffer("always", always, persistent=False)
        self.conditioned = len(given) > 0
        """Whether some columns are always given."""
        self._numbers = [j for j, c in enumerate(columns) if c.rest is not None]
        self._grid = [columns[j].grid for j in self._numbers]

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set the shares of the cells to those of training points ``x``; does nothing where they were set."""
        if bool(self.initialized):
            return
        starts = [sum(self.net.outputs[:j]) for j in range(len(self.columns))]
        with torch.no_grad():
            for start, column, cells in zip(starts, self.columns, x[..., CELL].T, strict=True):
                known = cells[cells >= 0].long().clamp(max=column.cells - 1)
                shares = one_hot(known, column.cells).sum(0) + _FEWEST
                self.net.output.bias[start : start + column.cells] = (shares / shares.sum()).log()
        self.initialized.fill_(True)

    # -- densities ----------------------------------------------------------------------------

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.column_log_probs(z).sum(-1)

    def column_log_probs(
        self, z: Tensor, given: Tensor | None = None, cut: Mapping[int, Tensor] | None = None
    ) -> Tensor:
        """What each column adds to the log-likelihood, ``(*batch, D)``: 0 where it is given or not known.

        Args:
            z: points; a column in the cell -1 is not known.
            given: which columns are conditioned on, ``(*batch, D)`` booleans; None for none.
            cut: of some columns, by number, what is added to the logits of their cells, ``(cells,)``: -inf
                for those that cannot be, as if the column's law did not have them.
        """
        batch = z.shape[:-2]
        if self.conditioned:
            given = self.always.expand(z.shape[:-1]) if given is None else given | self.always
        z = z.reshape(-1, *self.event_shape)
        known = z[..., CELL] != UNKNOWN  # NaN is known, and spoils what it should
        modeled, seen = known, None
        if given is not None:
            given = given.reshape(-1, len(self.columns)) & known
            modeled, seen = known & ~given, given.to(z.dtype)
        cells = z[..., CELL].nan_to_num(0.0, 0.0, 0.0).long()
        outputs = self.net(cells, z[..., PLACE].nan_to_num(), modeled.to(z.dtype), seen)
        heads = outputs.split(self.net.outputs, -1)
        rest = self._rest_log_probs(z, heads)
        found: list[Tensor] = []
        for j, (column, head) in enumerate(zip(self.columns, heads, strict=True)):
            logits = head[:, : column.cells]
            logits = (logits if cut is None or j not in cut else logits + cut[j].to(logits)).log_softmax(-1)
            cell = z[:, j, CELL]
            at = logits.gather(-1, cells[:, j, None].clamp(0, column.cells - 1))[:, 0]
            if column.rest is not None:
                number = logits[:, column.rest] + rest[j]
                atom = torch.logaddexp(at, number) if column.grid else at
                at = torch.where(cell == column.rest, number, torch.where(cell < column.rest, atom, at))
            found.append(at.masked_fill(cell >= column.cells, -math.inf))
        every = torch.where(modeled, torch.stack(found, -1), 0.0)
        lost = (z.isnan().any(-1) & known).any(-1, keepdim=True)
        every = torch.where(lost & modeled, math.nan, every)
        return every.reshape(*batch, len(self.columns))

    @staticmethod
    def without(z: Tensor, hidden: Tensor) -> Tensor:
        """Points in which these columns, ``(*batch, D)`` booleans, are not known."""
        z = z.clone()
        z[..., CELL] = torch.where(hidden, UNKNOWN, z[..., CELL])
        return z

    def _rest_log_probs(self, z: Tensor, heads: Sequence[Tensor]) -> dict[int, Tensor]:
        """The log-density, or on a grid the log-mass, of each number, as if it were in the rest."""
        if not self._numbers:
            return {}
        params = torch.stack([heads[j][:, self.columns[j].cells :] for j in self._numbers], 1)
        places = z[:, self._numbers]
        y, log_slope = self.family.forward(places[..., PLACE], params)
        density = -0.5 * (y * y + math.log(2 * math.pi)) + log_slope
        if not any(self._grid):
            return dict(zip(self._numbers, density.unbind(1), strict=True))
        on_grid = [i for i, grid in enumerate(self._grid) if grid]
        grid, width = places[:, on_grid], places[:, on_grid, LOW:].sum(-1)
        ends = torch.stack([grid[..., PLACE] - grid[..., LOW], grid[..., PLACE] + grid[..., HIGH]])
        y, log_slope = y[:, on_grid], log_slope[:, on_grid]
        # where the difference of two ends would lose more digits than width by density does
        narrow = width * log_slope.exp() * (1 + y.abs()) < 4 * torch.finfo(z.dtype).eps ** 0.5
        low, high = self.family.forward(ends, params[:, on_grid])[0]
        low, high = torch.where(narrow, -1.0, low), torch.where(narrow, 1.0, high)
        masses = torch.where(narrow, density[:, on_grid] + width.log(), log_normal_mass(low, high))
        mass = dict(zip(on_grid, masses.unbind(1), strict=True))
        return {j: mass[i] if i in mass else density[:, i] for i, j in enumerate(self._numbers)}

    # -- draws --------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        batch_shape: Sequence[int] = (),
        context: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> Tensor:
        shape = torch.Size(batch_shape)
        weight = self.net.output.weight
        z = torch.zeros(shape.numel(), *self.event_shape, dtype=weight.dtype, device=weight.device)
        z[..., CELL] = UNKNOWN
        return self.complete(z, generator=generator).reshape(*shape, *self.event_shape)

    @torch.no_grad()
    def complete(
        self, z: Tensor, cut: Mapping[int, Tensor] | None = None, *, generator: Generator | None = None
    ) -> Tensor:
        """Rows with every column that is not known drawn, given all those that are.

        Args:
            z: points ``(rows, D, 4)``; a column in the cell -1 is not known.
            cut: cells out of which some columns are not drawn, as ``column_log_probs`` has them.
            generator: of the draws.
        """
        parts = {j: Part(cells) for j, cells in (cut or {}).items()}
        z, unknown = z.clone(), z[..., CELL] == UNKNOWN
        known = None if bool(unknown.all()) else (~unknown).to(z.dtype)
        stepper = self.net.stepper(z[..., CELL].clamp(min=0).long(), z[..., PLACE], known)
        seen = unknown.to(z.dtype)
        before: tuple[Tensor, Tensor, Tensor] | tuple[None, None, None] = None, None, None
        for j in range(len(self.columns)):
            outputs = stepper(*before)
            if bool(unknown[:, j].any()):
                drawn = self.head(j, outputs).restricted(parts.get(j, ALL), generator)[0]
                drawn = self.columns[j].within(drawn)
                z[:, j] = torch.where(unknown[:, j, None], drawn, z[:, j])
            before = z[:, j, CELL].long(), z[:, j, PLACE], seen[:, j]
        return z

    @torch.no_grad()
    def conditional(self, z: Tensor, column: int) -> Head:
        """The law of one column given all others that are known, for each row of points ``(rows, D, 4)``."""
        known = z[..., CELL] != UNKNOWN
        known = known & (torch.arange(len(self.columns), device=z.device) != column)
        cells, places = z[..., CELL].clamp(min=0).long(), z[..., PLACE]
        outputs = self.net(cells, places, torch.zeros_like(places), known.to(z.dtype))
        return self.head(column, outputs.split(self.net.outputs, -1)[column])

    def head(self, column: int, outputs: Tensor) -> Head:
        """The law of a column that these outputs of the net are, ``(rows, outputs of the column)``."""
        return Head(self.columns[column], self.family, outputs)


@dataclass(frozen=True)
class Part:
    """A part of what a column may be.

    Args:
        cells: the log of each cell's share that is in it, ``(cells,)``: 0 for the whole cell, -inf for
            nothing of it; None for all cells.
        ends: pieces of the rest, pairs of places ``(pieces, 2)`` that do not overlap, at least one; None for
            all of it.
    """

    cells: Tensor | None = None
    ends: Tensor | None = None


ALL = Part()


def _open_unit(dtype: torch.dtype) -> tuple[float, float]:
    """The least and largest numbers between 0 and 1."""
    about = torch.finfo(dtype)
    return about.tiny, 1 - about.eps / 2


class Head:
    """The law of one column, a row each: shares of its cells, and a map of the rest onto the normal.

    Args:
        column: what it holds.
        family: the map's family.
        outputs: of the net, ``(rows, cells + parameters)``.
    """

    def __init__(self, column: CellColumn, family: LocationScale, outputs: Tensor):
        self.column, self.family = column, family
        self.log_shares = outputs[:, : column.cells].log_softmax(-1)
        self.params = outputs[:, column.cells :]

    def normal(self, places: Tensor) -> Tensor:
        """Places ``(rows,)`` of the rest on the standard normal."""
        return self.family.forward(places, self.params)[0]

    def share(self, part: Part) -> Tensor:
        """The log of how much of the column's mass lies in a part, ``(rows,)``; -inf for nothing."""
        return self._logits(part)[0].logsumexp(-1)

    def sample(self, generator: Generator | None = None) -> Tensor:
        """A draw for each row, ``(rows, 4)``."""
        return self.restricted(ALL, generator)[0]

    def restricted(self, part: Part, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """A draw within a part for each row, and the log of that part's share.

        Returns:
            codes ``(rows, 4)`` and log-shares ``(rows,)``, -inf where nothing is allowed.
        """
        (logits, low, high), rest = self._logits(part), self.column.rest
        rows, like = len(logits), logits
        share = logits.logsumexp(-1)
        edges = (logits - share.clamp(min=-1e30)[:, None]).exp().cumsum(-1)
        u = torch.rand(rows, 1, generator=generator, dtype=like.dtype, device=like.device) * edges[:, -1:]
        drawn = (u >= edges[:, :-1]).sum(-1)
        piece = (drawn - self.column.cells + 1).clamp(min=0)  # the rest's pieces stand last
        v = torch.rand(rows, generator=generator, dtype=like.dtype, device=like.device)
        low, high = (end.gather(-1, piece[:, None])[:, 0] for end in (low, high))
        right = low + high > 0  # there the mirrored quantiles are the exact ones
        a, b = torch.where(right, -high, low), torch.where(right, -low, high)
        a, b = torch.special.ndtr(a), torch.special.ndtr(b)
        y = torch.special.ndtri((a + (b - a) * v).clamp(*_open_unit(like.dtype)))
        y = torch.where(right, -y, y)
        code = logits.new_zeros(rows, 4)
        code[:, CELL] = drawn.to(code.dtype)
        code[:, LOW] = y  # of a cell of many values the quantile
        if rest is not None:
            is_rest = drawn >= self.column.cells - 1
            cell = torch.where(is_rest, rest, drawn + (drawn >= rest))
            place = self.family.inverse(y, self.params)[0]
            if part.ends is not None:
                ends = part.ends.to(place)[piece]
                place = torch.minimum(torch.maximum(place, ends[:, 0]), ends[:, 1])
            code[:, CELL] = cell.to(code.dtype)
            code[:, PLACE] = torch.where(is_rest, place, 0.0)
        return self.column.settled(code), share

    def _logits(self, part: Part) -> tuple[Tensor, Tensor, Tensor]:
        """Log-masses of a part's cells, the pieces of the rest last, and the ends of these on the normal."""
        logits, rest = self.log_shares, self.column.rest
        if part.cells is not None:
            logits = logits + part.cells.to(logits)
        below, above = (logits.new_full((len(logits), 1), end) for end in (-math.inf, math.inf))
        if rest is None:
            return logits, below, above
        number = logits[:, rest : rest + 1]
        logits = torch.cat([logits[:, :rest], logits[:, rest + 1 :]], -1)
        if part.ends is None:
            return torch.cat([logits, number], -1), below, above
        low, high = (
            torch.stack([self.normal(end.expand(len(logits))) for end in ends], -1)
            for ends in part.ends.to(logits).T
        )
        return torch.cat([logits, number + log_normal_mass(low, high)], -1), low, high
