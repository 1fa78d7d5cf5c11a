"""Missing entries filled with draws, given what is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffeo.bases.cells import CELL
from diffeo.encodings.cell_kinds import CellKind
from diffeo.encodings.cells import Cells
from diffeo.errors import ConfigError, DataError
from diffeo.flow import Flow, device_of, in_parts
from diffeo.functional.seeding import generator
from diffeo.tables.columns import held
from diffeo.tables.densities import known_rows
from diffeo.tables.known import BATCH, mixed, points
from diffeo.tables.table import Table
from diffeo.tables.tensors import to_table

_TRIED = 8
"""Draws of a row at least, from which those that fill it are taken."""


def impute(
    flow: Flow, table: Any, n: int = 1, *, seed: int | None = None, batch_size: int = BATCH
) -> list[Table]:
    """Fill the missing entries of a table with draws, each row's jointly, given all that is there.

    What was there stays as it was, to the bit, and each column keeps its type. A missing entry is unknown,
    not missing: the draws are of the law of values, as if no column had gaps. They are taken from more draws
    of each row, by the weights that the joint density gives these, as ``query`` does it. One draw is no more
    than a guess; what is computed from several, and how much it differs between them, says what the gaps
    leave open (Rubin 1987).

    Args:
        flow: fitted to a table, with ``Mixed``.
        table: a ``Table`` or whatever holds one. Columns that the model does not have stay as they are.
        n: draws.
        seed: makes them repeatable; None draws anew each time.
        batch_size: rows at a time.

    Returns:
        ``n`` tables.

    Raises:
        DataError: for a table with none of the model's columns, and a gap in one that it is conditioned on.
        ConfigError: for a flow of another kind, and less than one draw.

    Example:
        >>> from diffeo.encodings import Cells, Levels
        >>> from diffeo.presets import Mixed
        >>> flow = Mixed(1, hidden=8).build(Cells([Levels("sex", "string", True, ("F", "M"))]))
        >>> (filled,) = impute(flow, {"sex": ["F", None, "M"], "id": [1, 2, 3]}, seed=0)
        >>> filled.column("sex").null_count, filled.column("sex")[0].as_py()
        (0, 'F')
    """
    encoding, base = mixed(flow)
    if n < 1:
        raise ConfigError(f"n={n} tables cannot be drawn; ask for at least 1.")
    table = Table.of(table)
    rows, known = known_rows(encoding, table)
    gaps = known & rows.isnan()
    for j in map(encoding.names.index, encoding.given):
        if gaps[:, j].any():
            row = int(gaps[:, j].int().argmax()) + 1
            raise DataError(
                f"column {encoding.names[j]!r} is missing in row {row}, and this model is conditioned on it; "
                "leave such rows out."
            )
    hit = gaps.any(-1)
    for decided in encoding.decided:
        hit |= torch.from_numpy(_missing(table, decided.name))
    random = generator(seed, device_of(flow))
    cut = {j: _there(kind) for j, kind in enumerate(encoding.columns) if kind.gaps}

    each = max(_TRIED, 2 * n)

    def draw(x: Tensor, known: Tensor) -> Tensor:
        z = points(encoding, base, x, known)[0].repeat_interleave(each, 0)
        seen = z[..., CELL] >= 0
        whole = base.complete(z, cut, generator=random)
        joint, drawn = (base.column_log_probs(whole, given, cut).sum(-1) for given in (None, seen))
        chosen = _resampled((joint - drawn).double().reshape(-1, each).softmax(-1), n, random)
        first = torch.arange(0, len(z), each, device=z.device)
        return encoding.decode(whole[first[:, None] + chosen])

    drawn = rows[hit, None].expand(-1, n, -1)
    if bool(gaps.any()):
        drawn = in_parts(flow, draw, rows[hit], (known & ~gaps)[hit], batch_size=max(1, batch_size // each))
        numbers = torch.tensor([kind.rest is not None for kind in encoding.columns])
        there = known & ~gaps & numbers  # to the bit, where others are computed from them
        drawn = torch.where(there[hit, None], rows[hit, None], drawn)
    return [_filled(encoding, table, hit, drawn[:, i]) for i in range(n)]


def _resampled(weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Numbers of n draws for each row of weights, which sum to 1: systematic, in random order."""
    edges = weights.cumsum(-1)
    options = {"generator": generator, "dtype": weights.dtype, "device": weights.device}
    u = torch.rand(len(weights), 1, **options)
    at = (torch.arange(n, device=weights.device) + u) / n * edges[:, -1:]
    found = torch.searchsorted(edges, at).clamp(max=weights.shape[-1] - 1)
    return found.gather(-1, torch.rand(len(weights), n, **options).argsort(-1))


def below(tables: Sequence[Table], name: str) -> Table:
    """Tables of the same columns, one below the other; a first column of this name counts them from 1.

    Example:
        >>> below([Table({"a": np.array([1])}), Table({"a": np.array([2])})], "draw").values
        array([[1., 1.],
               [2., 2.]])
    """
    import pyarrow as pa

    columns: dict[str, Any] = {name: np.repeat(np.arange(1, len(tables) + 1), [len(t) for t in tables])}
    for column in tables[0].names:
        parts = [table.column(column) for table in tables]
        if all(isinstance(part, np.ndarray) for part in parts):
            columns[column] = np.concatenate(parts)
        else:
            columns[column] = held(column, pa.chunked_array([pa.array(part) for part in parts]))
    return Table(columns)


def _there(kind: CellKind) -> Tensor:
    """All cells but that of a gap."""
    cells = torch.zeros(kind.cells)
    cells[kind.missing] = -math.inf
    return cells


def _missing(table: Table, name: str) -> np.ndarray:
    """Where a column has gaps; nowhere, where the table does not have it."""
    column = table.column(name) if name in table.names else np.zeros(len(table))
    none = np.zeros(len(table), dtype=bool)
    return none if isinstance(column, np.ndarray) else np.asarray(column.is_null())


def _filled(encoding: Cells, table: Table, hit: Tensor, drawn: Tensor) -> Table:
    """The table with the gaps of its ``hit`` rows filled from rows that were drawn for these."""
    found = to_table(encoding, drawn)
    columns = {name: table.column(name) for name in table.names}
    at = torch.full((len(table),), -1)
    at[hit] = torch.arange(len(drawn))
    for known in (name for name in found.names if name.strip() in {n.strip() for n in table.names}):
        name = table.own([known])[0]
        gap = _missing(table, name)
        if gap.any():
            source = np.where(gap, at.numpy(), -1)
            columns[name] = held(name, _patched(columns[name], found.column(known), source))
    return Table(columns)


def _patched(column: Any, drawn: Any, source: np.ndarray) -> Any:
    """A column with the drawn values at ``source`` where that is not negative, in its own type."""
    import pyarrow as pa
    from pyarrow import types

    kind = column.type
    drawn = pa.array(drawn) if isinstance(drawn, np.ndarray) else drawn
    if types.is_null(kind):  # nothing is there, not even a type
        return drawn.take(pa.array(source))
    if types.is_dictionary(drawn.type):
        drawn = drawn.dictionary_decode()
    whole = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_integer(whole) and types.is_floating(drawn.type):  # the model learned fractions
        drawn = pa.array(np.round(np.asarray(drawn)))
    if types.is_dictionary(kind):
        known = column.dictionary.to_pylist()
        values = drawn.cast(kind.value_type).to_pylist()
        levels = {value: i for i, value in enumerate(dict.fromkeys([*known, *values]))}
        codes = np.array([levels[value] for value in values])
        indices = np.asarray(column.indices.fill_null(0)).astype(np.int64)
        indices = np.where(source < 0, indices, codes[source])
        every = pa.array(list(levels), kind.value_type)
        size = pa.array(indices).cast(kind.index_type)
        return pa.DictionaryArray.from_arrays(size, every, ordered=kind.ordered)
    index = np.where(source < 0, np.arange(len(column)), source + len(column))
    return pa.concat_arrays([column, drawn.cast(kind, safe=False)]).take(pa.array(index))
