"""What is known of a mixed row, as the density takes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from diffeo.bases.cells import CellDensity
from diffeo.encodings.cells import Cells
from diffeo.errors import ConfigError
from diffeo.flow import Flow, evaluating
from diffeo.tables.tensors import table_encoding

BATCH = 8_192
"""Rows that a question goes through at a time."""


def mixed(flow: Flow) -> tuple[Cells, CellDensity]:
    """The encoding and the density of a flow that answers questions of any columns given any others.

    Raises:
        ConfigError: for any other flow.
    """
    encoding, base = table_encoding(flow), flow.base
    if isinstance(encoding, Cells) and isinstance(base, CellDensity):
        return encoding, base
    given = f" given {', '.join(encoding.given)}" if encoding.given else ""
    raise ConfigError(
        f"this model has only the density of all its columns{given}, so it answers no such question; fit "
        "again with preset=Mixed(...), --preset Mixed on the command line."
    )


@contextmanager
def asking(flow: Flow) -> Iterator[None]:
    """A block in which a flow is asked: in evaluation mode and without gradients."""
    with evaluating(flow), torch.no_grad():
        yield


def points(encoding: Cells, base: CellDensity, rows: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of rows of which only some entries are known, and each entry's log-weight.

    An entry that the model cannot hold, such as a level never seen, tells nothing: it is not known either.

    Args:
        encoding, base: of the flow.
        rows: ``(rows, D)``.
        known: which entries are, ``(rows, D)`` booleans.
    """
    codes, weights = encoding.encode_each(encoding.nearest(rows))
    return base.without(codes, ~known | (weights == -torch.inf)), weights
