"""New rows drawn from a flow fitted to a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from diffeo.errors import ContextError, Cure
from diffeo.flow import Flow
from diffeo.tables.scores import context_of, table_encoding
from diffeo.tables.table import Table


def sample_table(
    flow: Flow, n: int, *, given: Any = None, seed: int | None = None, chunk: int = 65_536
) -> Table:
    """Draw ``n`` rows, or ``n`` for each row of ``given``, in the table's names, types and supports.

    Args:
        flow: fitted to a table.
        n: rows, at least 1.
        given: values of the columns the flow is conditioned on, ``{"age": 40}``, or a table of them as
            ``fit_table`` takes it; they come back as the first columns.
        seed: makes the draw repeatable; None draws anew each time.
        chunk: rows drawn at a time.

    Raises:
        ContextError: when the flow is conditioned on columns and ``given`` is None, or the reverse.
        DataError: when ``given`` lacks one of them.
    """
    encoding = table_encoding(flow)
    if encoding.given and given is None:
        raise ContextError(
            f"this model is conditioned on {', '.join(encoding.given)}; give their values: "
            f"given={{{encoding.given[0]!r}: VALUE, ...}}, or a table of them.",
            cure=Cure("given", dict.fromkeys(encoding.given, "VALUE")),
        )
    if given is not None and not encoding.given:
        raise ContextError("this model is conditioned on no column; leave the given values out.")
    generator = torch.Generator()
    generator.manual_seed(seed) if seed is not None else generator.seed()
    training = flow.training
    flow.eval()
    try:
        if given is None:
            parts = [flow.sample(min(chunk, n - i), generator=generator) for i in range(0, n, chunk)]
            return Table(encoding.names, torch.cat(parts).numpy(), encoding.dtypes)
        if isinstance(given, Mapping):
            given = {name: [value] if np.ndim(value) == 0 else value for name, value in given.items()}
        given = Table.of(given, only=encoding.given)
        context = context_of(flow, given)
        assert context is not None
        context = context.repeat_interleave(n, 0)
        parts = [
            flow.sample((), context[i : i + chunk], generator=generator)
            for i in range(0, len(context), chunk)
        ]
    finally:
        flow.train(training)
    values = np.concatenate([np.repeat(given.values, n, 0), torch.cat(parts).numpy()], 1)
    return Table((*given.names, *encoding.names), values, (*given.dtypes, *encoding.dtypes))
