"""The contract of an encoding: data that are not real vectors, as real vectors with weights.

``encode`` has a leading axis of K draws. One mechanism then serves exact encodings (K = 1), training on
dequantized values (K = 1, fresh noise) and deterministic scores (K fixed draws). ``Flow.draw_log_probs``
gives them one by one, and ``Flow.log_prob`` is the log of their mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffeo.errors import ConfigError


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
    takes_gaps: ClassVar[bool] = False
    """Whether NaN is data: a gap."""
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


class MonteCarloEncoding(Encoding):
    """An encoding whose likelihood is a mean over K random draws, and so a lower bound.

    To write one: ``Encoding``'s abstract methods, ``max_draws``, and an ``__init__`` that sets ``num_draws``.
    """

    exact = False
    max_draws: ClassVar[int]
    """The largest K."""

    @property
    def num_draws(self) -> int:
        """K, how many draws a likelihood averages over; may be changed at any time."""
        return self._num_draws

    @num_draws.setter
    def num_draws(self, num_draws: int) -> None:
        check_whole("num_draws", num_draws, 1, self.max_draws)
        self._num_draws = num_draws


def check_whole(name: str, value: Any, low: int, high: int) -> None:
    """Refuse what is not a whole number from ``low`` to ``high``, by name."""
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{name} must be a whole number from {low} to {high}, not {value!r}.")
