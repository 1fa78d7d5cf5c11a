"""New rows drawn from a flow fitted to a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffeo.encodings.cells import Cells
from diffeo.errors import ConfigError, ContextError, Cure, DataError
from diffeo.flow import Flow, device_of, in_parts
from diffeo.functional.seeding import generator
from diffeo.tables.densities import known_rows
from diffeo.tables.known import mixed, points
from diffeo.tables.table import Table
from diffeo.tables.tensors import table_encoding, to_context, to_table


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
    random = generator(seed, device_of(flow))

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
    if other := [name for name in given.names if name.strip() not in map(str.strip, encoding.names)]:
        raise DataError(f"this model has no column {other[0]!r}; it has {', '.join(encoding.names)}.")
    _, base = mixed(flow)
    rows, known = known_rows(encoding, given)
    impossible = known & (points(encoding, base, rows, known)[1] == -math.inf)
    if impossible.any():
        row, column = impossible.nonzero()[0].tolist()
        raise DataError(
            f"column {encoding.names[column]!r} cannot be what row {row + 1} of the given values says: the "
            "model has never seen it."
        )
    random = generator(seed, device_of(flow))

    def draw(part: Tensor, known: Tensor) -> Tensor:
        return encoding.decode(base.complete(points(encoding, base, part, known)[0], generator=random))

    each = (t.repeat_interleave(n, 0) for t in (rows, known))
    found = to_table(encoding, in_parts(flow, draw, *each, batch_size=batch_size))
    first = [name for name, is_given in zip(encoding.names, known[0].tolist(), strict=True) if is_given]
    return found.select([*first, *(name for name in found.names if name not in first)])
