"""``Cells``: rows of columns of any kind as cells and places, for the density of mixed rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from diffeo.bases.cells import CELL, UNKNOWN
from diffeo.encodings.base import Encoding
from diffeo.encodings.cell_kinds import CellKind, Numbers, blank, column_from_json, items, on_grid
from diffeo.encodings.column_kind import finite_number
from diffeo.errors import DataError, FormatError


@dataclass(frozen=True)
class Decided:
    """A column that others decide in every row, ``constant + sum of factor * column``: computed, not modeled.

    Args:
        name: of the column.
        dtype: what it is stored in.
        place: where it stands among all columns of the table.
        constant: what is added.
        factors: of columns that are modeled, by name.
        step: of the grid that its values lie on; 0 for none.
        offset: a point of it.
    """

    name: str
    dtype: str
    place: int
    constant: float
    factors: dict[str, float]
    step: float = 0.0
    offset: float = 0.0

    def of(self, names: Sequence[str], rows: Tensor) -> Tensor:
        """Its values in decoded rows ``(*batch, columns)``; a gap where a column has one."""
        total = rows.new_full(rows.shape[:-1], self.constant)
        for name, factor in self.factors.items():
            total = total + factor * rows[..., names.index(name)]
        return on_grid(total, self.step, self.offset)

    @classmethod
    def from_json(cls, spec: dict[str, Any]) -> Decided:
        """The column of ``asdict``'s entries in a file."""
        if set(spec) != {f.name for f in fields(cls)}:
            raise FormatError("a decided column in this file has the wrong entries.")
        texts = all(isinstance(spec[n], str) for n in ("name", "dtype"))
        if not (texts and type(spec["place"]) is int and isinstance(spec["factors"], dict)):
            raise FormatError("a decided column in this file is malformed.")
        numbers = {n: finite_number(spec[n], f"the {n} of a column") for n in ("constant", "step", "offset")}
        factors = {str(n): finite_number(v, "a factor") for n, v in spec["factors"].items()}
        return cls(**{**spec, **numbers, "factors": factors})


class Cells(Encoding):
    """Takes rows of columns of any kind to cells and places and back.

    The likelihood is exact and has one meaning: with respect to counting in categories, gaps, atoms and on
    grids, and to length elsewhere, in the columns' own units. So it is a log-mass in the former columns, a
    log-density in the others. Models of one schema have one measure, and compare.

    NaN is a gap. Where a column has gaps, a gap is a value that it may have; where not, it is not known, and
    marginalized over.

    Args:
        columns: what each holds, in the table's order.
        given: names of those that the density is conditioned on.
        weights: name of the column that weighted the training rows.
        decided: columns of the table that these decide: no part of the density, computed in samples.

    Shape: rows ``(*batch, columns)``; encoded ``(1, *batch, columns, 4)``.

    Raises:
        DataError: when a name appears twice, or no column is left to model.

    Example:
        >>> from diffeo.encodings import Levels
        >>> columns = Cells([Levels("sex", "string", False, ("F", "M"))])
        >>> columns.encode(torch.tensor([[1.0]], dtype=torch.float64))[0][..., 0]
        tensor([[[1.]]])
    """

    takes_gaps = True
    exact = True
    dtype_buffer: Tensor

    def __init__(
        self,
        columns: Sequence[CellKind],
        *,
        given: Sequence[str] = (),
        weights: str | None = None,
        decided: Sequence[Decided] = (),
    ):
        super().__init__()
        self.columns, self.weights, self.given = tuple(columns), weights, tuple(given)
        self.names, self.decided = tuple(c.name for c in columns), tuple(decided)
        self.dtypes = tuple(c.dtype for c in columns)
        every = (*self.names, *(d.name for d in decided), *(() if weights is None else (weights,)))
        twice, count = Counter(every).most_common(1)[0] if every else ("", 0)
        if count > 1:
            raise DataError(f"the name {twice!r} is used for two columns; rename one.")
        if not set(self.given) < set(self.names):
            raise DataError("no column is left to model; give fewer of them.")
        self.event_shape = torch.Size((len(columns),))
        self.latent_shape = torch.Size((len(columns), 4))
        self.register_buffer("dtype_buffer", torch.zeros(()), persistent=False)  # carries the model's dtype

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        codes, log_weights = self.encode_each(x)
        return codes.unsqueeze(0), log_weights.sum(-1).to(codes.dtype).unsqueeze(0)

    def encode_each(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes ``(*batch, columns, 4)``, and each column's log-weight in float64, ``(*batch, columns)``."""
        codes: list[Tensor] = []
        weights: list[Tensor] = []
        for column, values in zip(self.columns, x.double().movedim(-1, 0).contiguous(), strict=True):
            empty = values.isnan()
            code, weight = column.encode(values.nan_to_num())
            nothing = blank(values)
            nothing[..., CELL] = UNKNOWN if column.missing is None else column.missing
            codes.append(torch.where(empty.unsqueeze(-1), nothing, code))
            weights.append(torch.where(empty, 0.0, weight))
        return torch.stack(codes, -2).to(self.dtype_buffer.dtype), torch.stack(weights, -1)

    def decode(self, v: Tensor) -> Tensor:
        return torch.stack([c.decode(v[..., j, :]) for j, c in enumerate(self.columns)], -1)

    def nearest(self, x: Tensor) -> Tensor:
        """Rows with every value between the points of its column's grid moved to the nearest."""
        x = x.double().clone()
        for j, column in enumerate(self.columns):
            if isinstance(column, Numbers):
                x[..., j] = torch.where(column.atom(x[..., j])[1], x[..., j], column.nearest(x[..., j]))
        return x

    # -- files --------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        own = ("name", "dtype", "gaps")
        return {
            "columns": [{**{n: getattr(c, n) for n in own}, **c.to_json()} for c in self.columns],
            "given": list(self.given),
            "weights": self.weights,
            "decided": [asdict(d) for d in self.decided],
        }

    @classmethod
    def from_json(cls, spec: dict[str, Any]) -> Cells:
        if not isinstance(spec, dict) or set(spec) != {"columns", "given", "weights", "decided"}:
            raise FormatError("the table columns in this file are malformed: wrong entries.")
        columns = [column_from_json(c) for c in items(spec["columns"], dict)]
        weights, names = spec["weights"], {c.name for c in columns}
        decided = [Decided.from_json(d) for d in items(spec["decided"], dict)]
        if not all(names >= set(d.factors) for d in decided):
            raise FormatError("a column in this file is decided by one that there is not.")
        if weights is not None and not isinstance(weights, str):
            raise FormatError("the weights' column in this file has no name.")
        try:
            return cls(columns, given=items(spec["given"], str), weights=weights, decided=decided)
        except DataError as error:
            raise FormatError(f"the table columns in this file are malformed: {error}") from None
