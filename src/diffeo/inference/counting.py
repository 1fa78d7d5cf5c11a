"""What evaluates a target, and says how often."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from diffeo.contracts import State, Stateful
from diffeo.targets import Evaluator


class CountsEvaluations(Stateful):
    """An object that evaluates a target: its counts are reported, and go on where a run is resumed."""

    @property
    @abstractmethod
    def evaluator(self) -> Evaluator | None:
        """What the target is evaluated through; None where that is not known."""

    def state(self) -> State:
        """The counts; an object that remembers more adds it."""
        return {"counts": {} if self.evaluator is None else self.evaluator.state()[0]}, {}

    def restore(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Count on from there."""
        if self.evaluator is not None:
            self.evaluator.restore(state["counts"], {})
