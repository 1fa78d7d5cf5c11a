"""The flows every library builds: to be timed, five layers, nets of 64 x 64 hidden units, 8 bins a spline.

Glow: three levels of eight steps, convolutions of 3 x 3, 1 x 1 and 3 x 3 with 64 channels between.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

LAYERS = 5
HIDDEN = (64, 64)
BINS = 8
BOUND = 3.0
LEARNING_RATE = 1e-4
LIPSCHITZ = 0.97
"""Bound on the Lipschitz constant of a residual flow's net: of the product of its layers' norms."""
TOLERANCE = 1e-5
"""Of the solver of a continuous flow, absolute and relative."""
FREQUENCIES = 3
"""A continuous flow's net sees the time as so many sines and cosines."""

LEVELS, STEPS, CHANNELS = 3, 8, 64
"""Glow's levels, steps a level and hidden channels."""
IMAGES = {"Glow, gray": 1, "Glow, RGB": 3}
"""Models of square images, by their channels; what is the number of columns elsewhere is their side."""

LAYERED = ("RealNVP", "CouplingNSF", "MAF", "NSF")
"""Models whose nets run once a layer: the floor is known, and most libraries have them."""


@dataclass(frozen=True)
class Spec:
    """One flow: a model's name and D; probes and checks have smaller ones, some with a context."""

    model: str
    features: int
    layers: int = LAYERS
    hidden: tuple[int, ...] = HIDDEN
    context: int = 0
    usual: bool = False
    """The layers and nets that the library's manual shows, where those of equal architecture are others."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one data point."""
        if self.model not in IMAGES:
            return (self.features,)
        return (IMAGES[self.model], self.features, self.features)

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
        seen, given = self._ends(layer)
        return list(pairwise([seen, *self.hidden, given]))

    def _ends(self, layer: int) -> tuple[int, int]:
        if self.model == "ResidualFlow":
            return self.features, self.features
        if self.model == "FFJORD":
            return self.features + 2 * FREQUENCIES, self.features
        seen = sum(self.passing(layer)) if self.coupling else self.features
        changed = self.features - seen if self.coupling else self.features
        return seen, changed * self.params

    @property
    def parameters(self) -> int:
        """Weights and biases of all nets: what each contestant should have."""
        if self.model in IMAGES:
            widths = [4 * IMAGES[self.model] * 2**level for level in range(LEVELS)]
            return sum(STEPS * self._conv_net(width // 2, width) for width in widths)
        layers = 1 if self.model == "FFJORD" else self.layers
        return sum((n + 1) * m for layer in range(layers) for n, m in self.products(layer))

    @staticmethod
    def _conv_net(seen: int, given: int) -> int:
        return (9 * seen + 1) * CHANNELS + (CHANNELS + 1) * CHANNELS + (9 * CHANNELS + 1) * given


class Unsupported(Exception):
    """The library has no such layer; the message says which."""
