"""Between a table and what a flow takes and gives: the one place where columns become numbers and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from diffeo.encodings import Cells, Dequantization
from diffeo.encodings.columns import Columns
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.tables.cell_columns import as_cells, from_cells
from diffeo.tables.codes import from_numbers
from diffeo.tables.table import Table


def table_encoding(flow: Flow) -> Columns | Cells:
    """The flow's encoding of table columns; a ``ConfigError`` where it has none."""
    if isinstance(flow.encoding, Dequantization):
        raise ConfigError(
            "this model was fitted to images, not to a table; use score_images and sample_images."
        )
    if not isinstance(flow.encoding, Columns | Cells):
        raise ConfigError(
            "this flow was not fitted to a table, so it knows no columns; use log_prob and sample."
        )
    return flow.encoding


def to_rows(encoding: Columns | Cells, table: Table) -> Tensor:
    """The encoding's columns of a table, by name, as the flow takes them: float64 ``(rows, columns)``.

    Of mixed rows a level is its code, and NaN a gap; given columns are among them.

    Raises:
        DataError: where the table lacks a column, or one holds another sort of values than the flow learned.
    """
    table = table.select(encoding.names)
    if isinstance(encoding, Columns):
        return torch.from_numpy(table.values)
    columns = zip(encoding.columns, table.names, strict=True)
    rows = [as_cells(kind, table.column(name)) for kind, name in columns]
    return torch.from_numpy(np.stack(rows, -1))


def to_context(encoding: Columns | Cells, table: Table) -> Tensor | None:
    """The columns the flow is conditioned on, in its order; None where it has none beside its rows."""
    if isinstance(encoding, Cells) or not encoding.given:
        return None
    return torch.from_numpy(table.select(encoding.given).values)


def to_table(encoding: Columns | Cells, rows: Tensor) -> Table:
    """The table of rows that a flow drew, each column in the type that the flow learned it in."""
    values = rows.numpy()
    if isinstance(encoding, Columns):
        return Table.from_values(encoding.names, values, encoding.dtypes)
    columns = zip(encoding.columns, values.T, strict=True)
    found = [(kind.name, from_cells(kind, column)) for kind, column in columns]
    for decided in sorted(encoding.decided, key=lambda d: d.place):
        numbers = decided.of(encoding.names, rows).numpy()
        found.insert(decided.place, (decided.name, from_numbers(numbers, decided.dtype)))
    return Table(dict(found))
