"""The flows every contestant builds: five layers, nets with two hidden layers of 64, splines of 8 bins."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

LAYERS = 5
HIDDEN = (64, 64)
BINS = 8
BOUND = 3.0
LEARNING_RATE = 1e-4

MODELS = ("RealNVP", "CouplingNSF", "MAF", "NSF")
TIMED = ("log_prob", "train", "sample")
KINDS = (*TIMED, "memory")


@dataclass(frozen=True)
class Spec:
    """One flow: a model's name and D."""

    model: str
    features: int

    @property
    def coupling(self) -> bool:
        return self.model in ("RealNVP", "CouplingNSF")

    @property
    def spline(self) -> bool:
        return self.model in ("CouplingNSF", "NSF")

    @property
    def params(self) -> int:
        """Parameters of the scalar map: widths, heights and inner slopes, or shift and scale."""
        return 3 * BINS - 1 if self.spline else 2

    def passing(self, layer: int) -> list[bool]:
        """A coupling's mask: every second column passes, the other half in the next layer."""
        return [(i + layer) % 2 == 0 for i in range(self.features)]

    def products(self, layer: int) -> list[tuple[int, int]]:
        """(in, out) of each dense layer of one net; masked nets count in full."""
        seen = sum(self.passing(layer)) if self.coupling else self.features
        changed = self.features - seen if self.coupling else self.features
        widths = [seen, *HIDDEN, changed * self.params]
        return list(pairwise(widths))

    @property
    def parameters(self) -> int:
        """Weights and biases of all nets: what each contestant should have."""
        return sum((n + 1) * m for layer in range(LAYERS) for n, m in self.products(layer))


class Unsupported(Exception):
    """The library has no such layer; the message says which."""
