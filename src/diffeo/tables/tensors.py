"""Between a table and what a flow takes and gives: the one place where columns become numbers and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from diffeo.encodings import Dequantization
from diffeo.encodings.cells import Cells
from diffeo.encodings.columns import Columns
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.tables.cells import codes, from_codes
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
    """The encoding's columns of a table, by name, as the flow takes them: float64 ``(rows, columns)``."""
    if isinstance(encoding, Cells):
        names = table.own(encoding.names)
        parts = [codes(c, table.column(n)) for c, n in zip(encoding.columns, names, strict=True)]
        return torch.from_numpy(np.stack(parts, 1))
    return torch.from_numpy(table.select(encoding.names).values)


def to_context(encoding: Columns | Cells, table: Table) -> Tensor | None:
    """The columns the flow is conditioned on, in its order; None where it has none, or knows them as rows."""
    if isinstance(encoding, Cells):
        return None
    return torch.from_numpy(table.select(encoding.given).values) if encoding.given else None


def to_table(encoding: Columns | Cells, rows: Tensor) -> Table:
    """The table of rows that a flow drew, each column in the type that the flow learned it in."""
    if isinstance(encoding, Cells):
        columns = zip(encoding.columns, rows.numpy().T, strict=True)
        return Table({c.name: from_codes(c, values) for c, values in columns})
    return Table.from_values(encoding.names, rows.numpy(), encoding.dtypes)
