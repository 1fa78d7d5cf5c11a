"""What goes over to the kernels, in one table: codes, limits, and which number follows which.

A chain of stages is three lists: whole numbers, reals, and the addresses of tensors. Records fill them, one
after the other, each with its own part of each list. ``kernels/cpp/wire.hpp`` is the same table in C++ and
says which records make a chain; a test compares the two, name by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from functools import cache
from itertools import islice
from typing import Any, NamedTuple, get_type_hints

from torch import Tensor


class StageKind(IntEnum):
    """The layers the kernels know."""

    CONDITIONAL = 0
    PERMUTE = 1
    NORMALIZE = 2
    LU = 3
    RESIDUAL = 4
    TRANSPORT = 5


class FamilyKind(IntEnum):
    """The scalar maps they know."""

    ADDITIVE = 0
    AFFINE = 1
    SPLINE = 2


class Ends(IntEnum):
    """A spline's slopes at the ends of its box: 1, or a parameter each, or one parameter for both."""

    FIXED = 0
    OPEN = 1
    JOINED = 2


class Activation(IntEnum):
    """The smooth activations they know, with two derivatives."""

    SINE = 0
    TANH = 1
    SILU = 2


ROWS = 64
"""Rows of a block."""
MAX_LAYERS = 64
"""Layers of a net."""
MAX_BINS = 64
"""Bins of a spline."""
MAX_COLUMNS = 8
"""Columns of a smooth net, whose Jacobian is computed in full."""
MAX_STEPS = 4096
"""Steps of a solver."""
MAX_ITERATIONS = 1_000_000
"""Iterations of a residual block's inverse."""

Record = tuple[Any, ...]
"""Whole numbers first, then reals, then tensors, as the annotations say."""


class Program(NamedTuple):
    """Stages, in the order of the chain."""

    num_stages: int


class Stage(NamedTuple):
    """``inverted``: the stage's inverse stands in the chain."""

    kind: StageKind
    inverted: bool


class Conditional(NamedTuple):
    """Columns ``changed`` through a family whose parameters a net gives from columns ``seen``, both int32.

    ``autoregressive``: both are one order of all columns, and the net is masked.
    """

    autoregressive: bool
    num_seen: int
    num_changed: int
    num_layers: int
    seen: Tensor
    changed: Tensor


class Permute(NamedTuple):
    """Column j of the output is column ``permutation[j]`` of the input, int32."""

    permutation: Tensor


class Normalize(NamedTuple):
    """``(x - loc) exp(-log_scale)``."""

    loc: Tensor
    log_scale: Tensor


class LU(NamedTuple):
    """``L U x + bias``, both factors in one square, the log-diagonal softly clipped at ``bound``."""

    bound: float
    weight: Tensor
    log_diagonal: Tensor
    bias: Tensor | None


class Residual(NamedTuple):
    """``x + net(x)``; the net alone, without a log-determinant, where ``with_x`` is False.

    ``goal`` and ``iterations``: the inverse is done with a row y when its residual is at most
    ``goal (1 + |y|)``, and gives it up after so many iterations.
    """

    with_x: bool
    iterations: int
    goal: float


class Transport(NamedTuple):
    """Kutta's 3/8 rule for ``dx/dt = net(x, t)`` over the time ``span``; ``traced``: the trace, too.

    ``biases``, ``(3 steps + 1, out)``: the first layer's, at the ends of the steps and at their thirds.
    """

    traced: bool
    steps: int
    span: float
    biases: Tensor


class SmoothNet(NamedTuple):
    """A net of all columns to all columns, which sees ``x / sqrt(1 + (x / reach)^2)``; x where reach is 0."""

    activation: Activation
    num_layers: int
    reach: float


class Dense(NamedTuple):
    """``weight @ act(input) + bias + extra``, plus the output of layer ``add`` (-1: of none).

    ``relu`` and ``drop``, a probability, are of the input. ``extra`` is ``(*batch, outputs)``. ``limits``,
    int32 and ascending: unit o sees its first ``limits[o]`` inputs. ``row_stride``: of the weight.
    ``reach``, one number, of a net's first layer: its input is seen within +-``reach``.
    """

    inputs: int
    outputs: int
    row_stride: int
    relu: bool
    add: int
    drop: float
    weight: Tensor
    bias: Tensor | None
    extra: Tensor | None
    limits: Tensor | None
    reach: Tensor | None


class Scalar(NamedTuple):
    """A family as the kernels know it: which, how many bins, which slopes are free; and its box.

    Of an affine family ``high`` bounds the log-scale. Where ``reach`` is above 0, an affine map stands behind
    a spline, its log-scale bounded by that; its two parameters come first.
    """

    kind: FamilyKind
    bins: int = 0
    ends: Ends = Ends.FIXED
    low: float = 0.0
    high: float = 0.0
    reach: float = 0.0


@cache
def split(record: type[Record]) -> tuple[int, int]:
    """Where a record's reals and its tensors begin."""
    hints = list(get_type_hints(record).values())
    whole = sum(isinstance(hint, type) and issubclass(hint, int) for hint in hints)
    return whole, whole + hints.count(float)


def packed(records: Iterable[Record]) -> tuple[list[int], list[float], list[Tensor | None]]:
    """The three lists."""
    integers: list[int] = []
    reals: list[float] = []
    tensors: list[Tensor | None] = []
    for record in records:
        begin, end = split(type(record))
        integers += record[:begin]
        reals += record[begin:end]
        tensors += record[end:]
    return list(map(int, integers)), reals, tensors


def refilled(records: Iterable[Record], tensors: Iterator[Tensor | None]) -> list[Any]:
    """The records with the next of ``tensors`` in place of theirs."""
    found = []
    for record in records:
        begin = split(type(record))[1]
        found.append(type(record)(*record[:begin], *islice(tensors, len(record) - begin)))
    return found


def addresses(tensors: Sequence[Tensor | None]) -> list[int]:
    """Where their data are; 0 for none."""
    return [0 if t is None else t.data_ptr() for t in tensors]
