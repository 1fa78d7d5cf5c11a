"""Densities of any columns given any others, and the probabilities of a category's levels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffeo.bases.cells import CELL
from diffeo.encodings.cell_kinds import Levels
from diffeo.encodings.cells import Cells
from diffeo.errors import ConfigError, ContextError
from diffeo.flow import Flow, in_parts
from diffeo.tables.conditions import column_number
from diffeo.tables.known import BATCH, mixed, points
from diffeo.tables.table import Table, listed
from diffeo.tables.tensors import to_rows


def log_density(
    flow: Flow,
    table: Any,
    of: str | Iterable[str],
    given: str | Iterable[str] = (),
    *,
    batch_size: int = BATCH,
) -> np.ndarray:
    """The log-density of some columns given some others, for each row: ``log p(of | given)``, in one pass.

    A log-mass in categories, gaps and atoms, a log-density in other numbers, as ``score_table`` has it; the
    columns in neither are marginalized over. A given entry that the model cannot hold, such as a level never
    seen, tells nothing, and neither does a gap in a column that had none. Conditionals of several sets of
    columns agree with each other as well as training made them.

    Args:
        flow: fitted to a table, with ``Mixed``.
        table: a ``Table`` or whatever holds one; it needs these columns only.
        of: columns whose density is meant.
        given: columns that are given.
        batch_size: rows at a time.

    Raises:
        DataError: for columns that the model or the table does not have.
        ConfigError: for a flow of another kind, and a column in both roles.

    Example:
        >>> from diffeo.encodings import Cells, Levels
        >>> from diffeo.presets import Mixed
        >>> columns = Cells([Levels("sex", "string", False, ("F", "M"))])
        >>> log_density(Mixed(1, hidden=8).build(columns), {"sex": ["F", "other"]}, "sex").round(3)
        array([-0.693,   -inf])
    """
    encoding, _ = mixed(flow)
    roles = [[column_number(encoding, name) for name in listed(names)] for names in (of, given)]
    both = [*roles[0], *roles[1]]
    if twice := [encoding.names[j] for j in both if both.count(j) > 1]:
        raise ConfigError(f"column {twice[0]!r} is named twice among of and given; name it once.")
    table = Table.of(table)
    rows = torch.full((len(table), len(encoding.columns)), math.nan, dtype=torch.float64)
    rows[:, both] = to_rows(Cells([encoding.columns[j] for j in both]), table)
    masks = torch.zeros(2, len(encoding.columns), dtype=torch.bool)
    for mask, columns in zip(masks, roles, strict=True):
        mask[columns] = True
    return row_log_density(flow, rows, *masks, batch_size=batch_size)


def row_log_density(
    flow: Flow, rows: Tensor, of: Tensor, given: Tensor, *, batch_size: int = BATCH
) -> np.ndarray:
    """``log_density`` of rows as the flow takes them, with the roles of the columns as booleans ``(D,)``."""
    encoding, base = mixed(flow)
    for name in encoding.given:
        if not given[encoding.names.index(name)]:
            raise ContextError(f"this model is conditioned on {name!r}; give it too: given=[{name!r}, ...].")

    def log_prob(x: Tensor) -> Tensor:
        codes, weights = encoding.encode_each(encoding.nearest(x))
        on, asked = given.to(x.device).expand(x.shape), of.to(x.device)
        codes = base.without(codes, ~(on | asked) | (on & (weights == -math.inf)))
        found = base.column_log_probs(codes, on).double() + weights
        return torch.where(asked, found, 0.0).sum(-1)

    return in_parts(flow, log_prob, rows, batch_size=batch_size).numpy()


def predict_proba(flow: Flow, table: Any, column: str, *, batch_size: int = BATCH) -> Table:
    """The probability of each level of a category, for each row, given all other columns of the table.

    By Bayes' rule, a pass of the net for each level: the joint density is learned better than the law of one
    column given others in any order. (On Adult, P(class | rest) has AUC .922 so, and .906 by the latter.)

    What the table does not have is marginalized over; so are values that the model cannot hold, and gaps in
    columns that had none when it was fitted. Where they had, a gap tells what it told then.

    Args:
        flow: fitted to a table, with ``Mixed``.
        table: a ``Table`` or whatever holds one, with the category or without.
        column: the category.
        batch_size: rows at a time.

    Returns:
        a column for each level, named by it; they sum to 1.

    Raises:
        DataError: for a column that the model does not have.
        ConfigError: for a column that is not a category, and a flow of another kind.

    Example:
        >>> from diffeo.encodings import Cells, Levels
        >>> from diffeo.presets import Mixed
        >>> columns = Cells([Levels(n, "string", False, ("F", "M")) for n in ("sex", "partner")])
        >>> predict_proba(Mixed(2, hidden=8).build(columns), {"partner": ["F"]}, "sex")
        Table(1 rows: F float64, M float64)
    """
    encoding, base = mixed(flow)
    j = column_number(encoding, column)
    kind = encoding.columns[j]
    if not isinstance(kind, Levels):
        raise ConfigError(f"column {kind.name!r} holds numbers, not levels; ask query for its law.")
    if kind.name in encoding.given:
        raise ConfigError(f"this model is conditioned on {kind.name!r}, so it has no probabilities for it.")
    rows, known = known_rows(encoding, Table.of(table))
    known[:, j] = False

    def probabilities(x: Tensor, known: Tensor) -> Tensor:
        z = points(encoding, base, x, known)[0]
        z[:, j] = 0.0
        joint: list[Tensor] = []
        for cell in range(kind.cells - kind.gaps):
            z[:, j, CELL] = cell
            joint.append(base.log_prob(z).double())
        return kind.level_shares(torch.stack(joint, -1).softmax(-1))

    found = in_parts(flow, probabilities, rows, known, batch_size=batch_size).numpy()
    return Table({str(level): found[:, i] for i, level in enumerate(kind.levels)})


def known_rows(encoding: Cells, table: Table) -> tuple[Tensor, Tensor]:
    """Rows as a flow takes them of what a table has, and which entries are known: ``(rows, D)`` each.

    A gap counts as known: it is a value where a column has gaps.

    Raises:
        DataError: for a table with none of the columns, or without one that the model is conditioned on.
    """
    has = {name.strip() for name in table.names}
    own = [j for j, name in enumerate(encoding.names) if name.strip() in has]
    needed = [*encoding.given] if own else encoding.names
    table.own(needed)  # refuses by name
    rows = torch.full((len(table), len(encoding.columns)), math.nan, dtype=torch.float64)
    rows[:, own] = to_rows(Cells([encoding.columns[j] for j in own]), table)
    known = torch.zeros_like(rows, dtype=torch.bool)
    known[:, own] = True
    return rows, known
