"""The contract of the door for data that is not yet a real vector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class Encoding(nn.Module, ABC):
    """Takes data to real vectors and back: table columns, dequantization, image bytes.

    Not a bijection: discrete data becomes a cell of real vectors. ``encode`` gives one or several
    draws from each cell, and the log-likelihood behind it is

        log 1/K sum_k exp(log p(v_k) + log_weight_k),

    exact when ``exact`` is True (K = 1, a change of variables), else a lower bound on the log mass.
    In training mode K = 1, unless the encoding says otherwise, with noise from torch's default generator;
    in evaluation mode the K draws are fixed, so that scores are deterministic.
    """

    data_dtype: ClassVar[torch.dtype] = torch.float64
    """What ``fit`` holds data in; one of whole numbers takes only those that it can hold."""
    exact: bool
    event_shape: torch.Size
    """Shape of one data point before encoding."""
    latent_shape: torch.Size
    """Shape of one encoded vector: the event shape of the bijection behind it."""

    @abstractmethod
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` of ``(*batch, *event_shape)`` to ``v`` of ``(K, *batch, *latent_shape)`` and the
        ``log_weight`` of ``(K, *batch)``; -inf where ``x`` lies outside the data's support."""

    @abstractmethod
    def decode(self, v: Tensor) -> Tensor:
        """``(*batch, *latent_shape)`` to data of ``(*batch, *event_shape)``; always in the support."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """What rebuilds this encoding, as plain JSON: it goes into the model file's header."""

    @classmethod
    @abstractmethod
    def from_json(cls, spec: dict[str, Any]) -> Encoding:
        """Rebuild from ``to_json``'s answer; refuses anything malformed with ``FormatError``."""
