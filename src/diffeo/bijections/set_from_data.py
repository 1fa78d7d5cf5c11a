"""Base class of maps whose parameters are computed from the training rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from diffeo.bijections.base import Bijection
from diffeo.contracts import Initializable
from diffeo.errors import DataError
from diffeo.functional.shapes import batch_shape


class SetFromData(Bijection, Initializable, ABC):
    """A bijection that ``initialize`` sets from data once; the flag that says so is saved with it."""

    initialized: Tensor

    def __init__(self, event_shape: Sequence[int]):
        super().__init__(event_shape)
        self.register_buffer("initialized", torch.tensor(False))

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set the map from training rows; does nothing where it was set before, loading included.

        Args:
            x: ``(*batch, *event_shape)``, at least one point, finite.
            context: not looked at.

        Raises:
            DataError: for no points, or points that are not finite.
        """
        if bool(self.initialized):
            return
        batch = batch_shape(x, self.event_shape, "x")
        if not batch.numel() or not bool(x.isfinite().all()):
            raise DataError(
                f"{type(self).__name__} is set from finite data, but x of shape {tuple(x.shape)} "
                + ("has no points." if not batch.numel() else "holds NaN or infinite values.")
            )
        # a float32 variance loses everything when the mean is large
        self.set_from(x.reshape(-1, *self.event_shape).double())
        self.initialized.fill_(True)

    @abstractmethod
    def set_from(self, rows: Tensor) -> None:
        """Set buffers and parameters from finite float64 ``rows``, ``(n, *event_shape)``, n >= 1."""
