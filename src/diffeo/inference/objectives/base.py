"""What objectives of targets share."""

from __future__ import annotations

from abc import ABC, abstractmethod

from diffeo.targets import Evaluator


class OfTarget(ABC):
    """An objective that evaluates a target, and says through what, so that evaluations can be counted."""

    @property
    @abstractmethod
    def evaluator(self) -> Evaluator | None:
        """What the target is evaluated through; None where that is not known."""
