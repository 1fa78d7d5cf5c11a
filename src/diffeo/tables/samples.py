"""New rows drawn from a flow fitted to a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffeo.bases import CellDensity
from diffeo.encodings.cells import Cells
from diffeo.errors import ConfigError, ContextError, Cure, DataError
from diffeo.flow import Flow, in_parts
from diffeo.functional.seeding import generator
from diffeo.tables.table import Table
from diffeo.tables.tensors import table_encoding, to_context, to_rows, to_table


def sample_table(
    flow: Flow, n: int, *, given: Any = None, seed: int | None = None, batch_size: int = 65_536
) -> Table:
    """Draw ``n`` rows, or ``n`` for each row of ``given``, in the table's names, types and supports.

    Args:
        flow: fitted to a table.
        n: rows, at least 1.
        given: values of the columns the flow is conditioned on, ``{"age": 40}``, or a table of them as
            ``fit_table`` takes it; they come back as the first columns.
        seed: makes the draw repeatable; None draws anew each time.
        batch_size: rows drawn at a time.

    Raises:
        ContextError: when the flow is conditioned on columns and ``given`` is None, or the reverse.
        DataError: when ``given`` lacks one of them.
        ConfigError: for a flow of something else, and less than one row.
    """
    encoding = table_encoding(flow)
    if n < 1:
        raise ConfigError(f"n={n} rows cannot be drawn; ask for at least 1.")
    if isinstance(encoding, Cells) and given is not None:
        return _completed(flow, encoding, n, given, seed, batch_size)
    if encoding.given and given is None:
        raise ContextError(
            f"this model is conditioned on {', '.join(encoding.given)}; give their values: "
            f"given={{{encoding.given[0]!r}: VALUE, ...}}, or a table of them.",
            cure=Cure("given", dict.fromkeys(encoding.given, "VALUE")),
        )
    if given is not None and not encoding.given:
        raise ContextError("this model is conditioned on no column; leave the given values out.")
    device = next((p.device for p in flow.parameters()), torch.device("cpu"))
    random = generator(seed, device)

    def draw(part: Tensor, context: Tensor | None) -> Tensor:
        return flow.sample(len(part) if context is None else (), context, generator=random)

    if given is None:
        return to_table(encoding, in_parts(flow, draw, torch.arange(n), None, batch_size=batch_size))
    if isinstance(given, Mapping):
        given = {name: [value] if np.ndim(value) == 0 else value for name, value in given.items()}
    given = Table.of(given, only=encoding.given)
    given = given.rows(np.repeat(np.arange(len(given)), n))
    context = to_context(encoding, given)
    drawn = in_parts(flow, draw, torch.arange(len(given)), context, batch_size=batch_size)
    return given.beside(to_table(encoding, drawn))


def _completed(flow: Flow, encoding: Cells, n: int, given: Any, seed: int | None, batch_size: int) -> Table:
    """Rows of any columns given any others: these first, in the order in which they came."""
    if isinstance(given, Mapping):
        given = {name: [value] if np.ndim(value) == 0 else value for name, value in given.items()}
    given = Table.of(given)
    names = [name for name in encoding.names if name in {known.strip() for known in given.names}]
    if lacks := [name for name in encoding.given if name not in names]:
        raise DataError(f"the given columns lack {lacks[0]!r}, which this model is conditioned on.")
    if other := [name for name in given.names if name.strip() not in names]:
        raise DataError(f"this model has no column {other[0]!r}; it has {', '.join(encoding.names)}.")
    assert isinstance(flow.base, CellDensity)
    base, random = flow.base, generator(seed, next(flow.parameters()).device)
    rows = torch.full((len(given), len(encoding.names)), math.nan, dtype=torch.float64)
    at = [encoding.names.index(name) for name in names]
    rows[:, at] = to_rows(Cells([encoding.columns[i] for i in at]), given)
    hidden = torch.ones(len(encoding.names), dtype=torch.bool)
    hidden[at] = False

    def draw(part: Tensor) -> Tensor:
        return encoding.decode(
            base.complete(base.without(encoding.encode(part)[0][0], hidden), generator=random)
        )

    drawn = in_parts(flow, draw, rows.repeat_interleave(n, 0), batch_size=batch_size)
    found = to_table(encoding, drawn)
    return found.select([*names, *(name for name in found.names if name not in names)])
