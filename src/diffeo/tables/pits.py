"""What a model of mixed rows expects of each column, given those before it: for calibration."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffeo.bases.cells import CELL, HIGH, LOW, PLACE, Head
from diffeo.encodings.cell_kinds import Numbers
from diffeo.flow import Flow, device_of, in_parts
from diffeo.functional.seeding import generator
from diffeo.tables.known import BATCH, mixed
from diffeo.tables.table import Table
from diffeo.tables.tensors import to_rows


class CellPits:
    """Distribution functions of a model's columns at rows' own values, as ``report`` takes them.

    Each column given those before it in the table. Levels stand in the order of their frequency, a gap before
    all values; within a step a uniform number says where.

    Args:
        flow: fitted to a table, with ``Mixed``.

    Raises:
        ConfigError: for a flow of another kind.
    """

    def __init__(self, flow: Flow):
        self.flow = flow
        encoding, self.base = mixed(flow)
        self.encoding = encoding
        self.modeled = [j for j, name in enumerate(encoding.names) if name not in encoding.given]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns that are modeled."""
        return tuple(self.encoding.names[j] for j in self.modeled)

    def pits(self, table: Table, seed: int) -> NDArray[np.float64]:
        """The distribution functions, ``(rows, columns)``."""
        random = generator(seed, device_of(self.flow))

        def of(rows: Tensor) -> Tensor:
            z = self.encoding.encode(self.encoding.nearest(rows))[0][0]
            given = self.base.always.expand(z.shape[:-1])
            seen = (~given).to(z.dtype)
            cells = z[..., CELL].clamp(min=0).long()
            outputs = self.base.net(cells, z[..., PLACE], seen, given.to(z.dtype))
            heads = outputs.split(self.base.net.outputs, -1)
            ends = [self._ends(j, self.base.head(j, heads[j]), z[:, j]) for j in self.modeled]
            low, high = (torch.stack(end, -1).double() for end in zip(*ends, strict=True))
            u = torch.rand(low.shape, generator=random, dtype=low.dtype, device=low.device)
            return low + (high - low) * u

        return in_parts(self.flow, of, to_rows(self.encoding, table), batch_size=BATCH).numpy()

    def _ends(self, j: int, head: Head, z: Tensor) -> tuple[Tensor, Tensor]:
        """How likely less than the value is, and no more than it."""
        column, shares = self.encoding.columns[j], head.log_shares.exp()
        cell = z[:, CELL].clamp(0, column.cells - 1).long()
        own = shares.gather(-1, cell[:, None])[:, 0]
        gap = shares[:, column.missing] if column.missing is not None else torch.zeros_like(own)
        if not isinstance(column, Numbers):
            below = shares.cumsum(-1).gather(-1, cell[:, None])[:, 0] - own + gap
        else:
            atoms = shares[:, : column.rest].cumsum(-1)
            atoms = (
                torch.cat([torch.zeros_like(atoms[:, :1]), atoms], -1) if column.rest else shares[:, :1] * 0
            )
            known = torch.tensor(column.atoms, dtype=torch.float64, device=z.device)
            rank = torch.searchsorted(known, column.decode(z).nan_to_num().contiguous())
            low = high = z[:, PLACE]
            if column.grid:
                low, high = low - z[:, LOW], high + z[:, HIGH]
            first, last = (torch.special.ndtr(head.normal(end)) for end in (low, high))
            rest = shares[:, column.rest]
            below = gap + atoms.gather(-1, rank[:, None])[:, 0] + rest * first
            own = torch.where(cell == column.rest, 0.0, own) + rest * (last - first)
        if column.missing is None:
            return below, below + own
        missing = cell == column.missing
        return torch.where(missing, 0.0, below), torch.where(missing, gap, below + own)
