"""The rows a run trains on: checked, split, and dealt out in batches."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from diffeo._arrays import unmasked
from diffeo.errors import ContextError, DataError, ShapeError
from diffeo.flow import Flow
from diffeo.functional.seeding import generator
from diffeo.objectives import Batch

_COARSE = 0.05
"""The part of a spread by which a cast may move a typical row: 0.05 adds less than 0.005 to the variance, and
some thousandths of a nat to a density."""
_LOOKED_AT = 10_000
"""Rows from which that is told."""


@runtime_checkable
class Rows(Protocol):
    """Rows that a run trains on or is measured on, wherever they are kept: all that the loop asks of them.

    ``TensorRows`` has them in memory. A stream from disk meets the same protocol with a ``batch`` that reads
    the rows it is asked for, and a ``fingerprint`` of what tells one set of rows from another, such as the
    names, sizes and times of its files.
    """

    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> Batch:
        """The rows of these numbers, in this order."""
        ...

    def sample(self, most: int) -> Batch:
        """At most so many rows at random, each as often as its weight says, to initialize a flow from."""
        ...

    def split(self, fraction: float, seed: int) -> tuple[Rows, Rows | None]:
        """Training rows and so large a part held out; None for a part of 0. The seed alone decides."""
        ...

    def fingerprint(self) -> str:
        """What tells these rows from others: a checkpoint belongs to one set of rows."""
        ...


def sampled(rows: int, most: int, seed: int) -> Tensor:
    """The numbers of at most so many rows, in order: of two samples the larger holds the smaller."""
    if rows <= most:
        return torch.arange(rows)
    return torch.randperm(rows, generator=generator(seed))[:most].sort().values


def default_batch_size(rows: int) -> int:
    """About 20 steps an epoch on small tables, never above 512 rows nor below 32."""
    return int(min(512, max(32, 2 ** round(math.log2(max(1, rows / 20))))))


@dataclass(frozen=True)
class TensorRows:
    """Rows in memory, as tensors, with their numbers in the data as given."""

    x: Tensor
    context: Tensor | None
    weights: Tensor | None
    numbers: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, index: Tensor) -> TensorRows:
        """The rows at ``index``."""
        return TensorRows(
            self.x[index],
            None if self.context is None else self.context[index],
            None if self.weights is None else self.weights[index],
            self.numbers[index],
        )

    def split(self, fraction: float, seed: int) -> tuple[TensorRows, TensorRows | None]:
        """Training and held-out rows; at least one of each."""
        if not fraction:
            return self, None
        held = min(max(1, round(fraction * len(self))), len(self) - 1)
        if held < 1:
            raise DataError("one row cannot be split; pass validation=0 or more rows.")
        order = torch.randperm(len(self), generator=generator(seed))
        return self.take(order[held:].sort().values), self.take(order[:held].sort().values)

    def sample(self, most: int) -> Batch:
        """At most ``most`` rows in random order, each as often as its weight says; all of them if equal."""
        if len(self) > 10 * most:  # a permutation of millions takes a second
            index = torch.randint(len(self), (2 * most,)).unique()
            index = index[torch.randperm(len(index))[:most]]
        else:
            index = torch.randperm(len(self))[:most]
        if self.weights is not None:
            share = self.weights[index].double().cumsum(0)
            at = (torch.arange(len(index), dtype=share.dtype) + 0.5) / len(index) * share[-1]
            index = index[torch.searchsorted(share, at)]
        return self.batch(index)

    def batch(self, index: Tensor) -> Batch:
        """The rows at ``index`` as a batch."""
        part = self.take(index)
        return Batch(part.x, part.context, part.weights, part.numbers)

    def fingerprint(self) -> str:
        """A digest of the contents."""
        digest = hashlib.sha256()
        for tensor in (self.x, self.context, self.weights, self.numbers):
            if tensor is not None:
                digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class Epochs:
    """Batch number ``step`` of an endless run of shuffled epochs, the last partial batch included.

    A pure function of ``(seed, step)``, so a resumed run sees the same batches.
    """

    def __init__(self, rows: Rows, batch_size: int, seed: int):
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.per_epoch = -(-len(rows) // batch_size)
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def __getitem__(self, step: int) -> Batch:
        epoch, i = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            shuffle = generator(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.rows), generator=shuffle)
        return self.rows.batch(self._order[i * self.batch_size : (i + 1) * self.batch_size])


def rows_for(flow: Flow, x: ArrayLike, context: ArrayLike | None, weights: ArrayLike | None) -> TensorRows:
    """Check data against the flow and make them tensors of its dtype; errors name row and column."""
    parameter = next(flow.parameters(), torch.empty(0))
    exact = parameter.dtype if flow.encoding is None else flow.encoding.data_dtype
    gaps = flow.encoding is not None and flow.encoding.takes_gaps
    data = _tensor(x, "x", exact, flow.event_shape, gaps)
    if (context is None) != (flow.context_shape is None):
        raise ContextError(
            "this flow needs a context and fit was given none; pass context=."
            if context is None
            else "fit was given a context but this flow takes none; build it with context=."
        )
    given = None
    if context is not None and flow.context_shape is not None:
        exact = None if flow.context_encoding is not None else parameter.dtype
        given = _tensor(context, "context", exact, flow.context_shape)
    weight = None if weights is None else _tensor(weights, "weights", torch.float64, torch.Size())
    for name, other in (("context", given), ("weights", weight)):
        if other is not None and len(other) != len(data):
            raise ShapeError(f"x has {len(data)} rows but {name} has {len(other)}; they must be equal.")
    if weight is not None and (bool((weight < 0).any()) or not bool((weight > 0).any())):
        raise DataError("weights must be non-negative and not all zero.")
    if weight is not None:  # only ratios count: neither 1e-45 nor 1e40 is lost in the cast
        weight = (weight / weight.max()).to(parameter.dtype)
    rows = TensorRows(data, given, weight, torch.arange(len(data)))
    # rows of weight 0 would still move the standardization, and a batch of nothing else has no mean
    return rows if weight is None else rows.take((weight > 0).nonzero()[:, 0])


def _tensor(
    values: ArrayLike, name: str, dtype: torch.dtype | None, event: torch.Size, gaps: bool = False
) -> Tensor:
    tensor = values if isinstance(values, Tensor) else _from_numpy(values, name)
    if tensor.dim() != 1 + len(event) or tensor.shape[1:] != event:
        wanted = ", ".join(["rows", *map(str, event)])
        raise ShapeError(f"{name} has shape {tuple(tensor.shape)}; this flow needs ({wanted}).")
    if not len(tensor):
        raise DataError(f"{name} has no rows.")
    tensor = tensor.detach()
    dtype = dtype or tensor.dtype
    stored, tensor = tensor, tensor.to(dtype) if dtype.is_floating_point else tensor
    bad = (tensor.isinf() if gaps else ~torch.isfinite(tensor)).nonzero()
    if len(bad):
        where = ", ".join(map(str, bad[0].tolist()[1:]))
        value = tensor[tuple(bad[0].tolist())].item()
        raise DataError(
            f"{name} has {len(bad)} values that are not finite, the first in row {bad[0, 0].item()}"
            + (f", column {where}" if where else "")
            + f": {value}. Drop or fill those rows first."
        )
    if not dtype.is_floating_point:
        return _whole(tensor, name, dtype)
    if tensor.dim() > 1 and stored.dtype != dtype:
        _check_cast(stored, tensor, name)
    return tensor


def _check_cast(stored: Tensor, cast: Tensor, name: str) -> None:
    """Refuse a cast that rounds typical rows by a part of the spread that a density would see."""
    rows = slice(None, None, max(1, len(stored) // _LOOKED_AT))
    exact = stored[rows].double().flatten(1)
    error = (exact - cast[rows].double().flatten(1)).abs().median(0).values
    if not bool((error > 0).any()):
        return
    # by ranks, which a far outlier does not move
    ranked = exact.sort(0).values
    low, high = (ranked[round(p * (len(ranked) - 1))] for p in (0.1587, 0.8413))
    spread = torch.where(high > low, (high - low) / 2, exact.std(0, unbiased=False))
    bad = (error > _COARSE * spread).nonzero()
    if len(bad):
        column = int(bad[0])
        where = f" of column {column}" if stored.dim() == 2 else ""
        middle, kind = float(ranked[len(ranked) // 2, column]), str(cast.dtype).removeprefix("torch.")
        raise DataError(
            f"{kind}, this flow's precision, cannot hold {name}: around {middle:.6g} it rounds by "
            f"{float(error[column]):.3g} where the spread{where} is {float(spread[column]):.3g}. "
            f"Subtract an offset from the data, or fit flow.double()."
        )


def _whole(tensor: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """Cast to a dtype of whole numbers what it can hold; the error names the first that it cannot."""
    if tensor.dtype == dtype:
        return tensor
    tensor = tensor if tensor.is_floating_point() else tensor.long()
    low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    bad = (tensor < low) | (tensor > high) | (tensor != tensor.floor())
    if bool(bad.any()):
        row = int(bad.flatten(1).any(1).nonzero()[0])
        where = bad[row].nonzero()[0].tolist()
        unit = bool(tensor.min() >= 0) and bool(tensor.max() <= 1)
        cure = f"multiply by {high} and round." if unit else "round and clip them first."
        raise DataError(
            f"{name} has {int(bad.sum())} values that are not whole numbers from {low} to {high}, the first "
            f"in row {row} at ({', '.join(map(str, where))}): {tensor[row][tuple(where)].item():.6g}; {cure}"
        )
    return tensor.to(dtype)


def _from_numpy(values: ArrayLike, name: str) -> Tensor:
    try:
        return torch.from_numpy(np.array(unmasked(values)))  # a copy: arrays may be read-only or reversed
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is not an array of numbers ({error}); pass numbers of one shape.") from None
