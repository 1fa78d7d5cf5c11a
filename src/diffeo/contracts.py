"""What the parts promise each other: for those who write a kind of their own.

A bijection, family, base or encoding states its promises in ``Traits``, and may be ``Initializable`` or
``Projectable``. Nets meet one of the protocols here; layers know no more of them, so any module that has
these members will do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = [
    "CausalNet",
    "ImageNet",
    "Initializable",
    "MaskedNet",
    "Net",
    "Projectable",
    "State",
    "Stateful",
    "Stepper",
    "Traits",
    "Windowed",
    "Windows",
]


@dataclass(frozen=True)
class Traits:
    """What a kind promises; ``diffeo.testing`` holds it to exactly this.

    Args:
        closed_form: forward and inverse are finite formulas, no iteration.
        exact_log_det: ``log_det`` is exact, not an estimate.
        capturable: works under ``torch.compile(fullgraph=True)`` and ``torch.func``.
        tolerance: bound on the error of a numeric inverse; 0 for closed forms.
        forward_passes: network passes ``forward`` costs.
        inverse_passes: network passes' worth of work ``inverse`` costs.

    Example:
        >>> Traits().then(Traits(closed_form=False, tolerance=1e-6, inverse_passes=10))
        Traits(closed_form=False, exact_log_det=True, capturable=True, tolerance=1e-06,
               forward_passes=2, inverse_passes=11)
    """

    closed_form: bool = True
    exact_log_det: bool = True
    capturable: bool = True
    tolerance: float = 0.0
    forward_passes: int = 1
    inverse_passes: int = 1

    def then(self, other: Traits) -> Traits:
        """The traits of this kind followed by another."""
        return Traits(
            self.closed_form and other.closed_form,
            self.exact_log_det and other.exact_log_det,
            self.capturable and other.capturable,
            max(self.tolerance, other.tolerance),
            self.forward_passes + other.forward_passes,
            self.inverse_passes + other.inverse_passes,
        )


class Initializable(ABC):
    """A module whose buffers or parameters are set from data, once, before training.

    ``fit`` calls ``initialize`` of the flow, which hands each part what it will see: ``Standardize`` takes
    its moments from there, ``ActNorm`` its scales.
    """

    @abstractmethod
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set the module from training data ``x``, ``(rows, *event_shape)``.

        A second call changes nothing: a saved buffer named ``initialized`` says that the first was made. What
        only hands the data on to its parts has no such buffer.
        """


class Projectable(ABC):
    """A module that keeps a constraint by projection; ``fit`` calls ``project_`` after each step."""

    @abstractmethod
    def project_(self) -> None:
        """Bring the parameters back into the feasible set, in place."""


State = tuple[dict[str, Any], dict[str, Tensor]]
"""What a checkpoint keeps of an object: plain JSON, and tensors by name."""


class Stateful(ABC):
    """An object whose state changes as a run goes and comes back when the run is resumed."""

    @abstractmethod
    def state(self) -> State:
        """All that its future depends on."""

    @abstractmethod
    def restore(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Become what ``state()`` was taken of; ``KeyError`` or ``TypeError`` where that cannot be."""


class Net(Protocol):
    """Computes parameters from features and context; knows nothing of flows. ``Coupling`` takes one.

    Shape: ``(*batch, in_features)`` and ``(*batch, context_features)`` to ``(*batch, out_features)``.
    """

    in_features: int
    out_features: int
    context_features: int
    """Length of the context vector; 0 for a net that takes none."""

    def __call__(self, x: Tensor, context: Tensor | None = None) -> Tensor: ...


class Stepper(Protocol):
    """One pass of a masked or causal net, a column at a time.

    The parameters of a column are given once those before it are known. D steps together cost the work of one
    pass, which is what makes an autoregressive layer's inverse cheap.
    """

    def __call__(self, previous: Tensor | None) -> Tensor:
        """Take column d-1, ``(*batch,)`` (None at d = 0); give what column d needs, ``(*batch, params)``."""
        ...


class MaskedNet(Protocol):
    """A net whose parameters for column i see columns before i, and context, only.

    ``Autoregressive`` takes one.

    Shape: ``(*batch, features)`` and ``(*batch, context_features)`` to ``(*batch, features, params)``.
    """

    features: int
    params: int
    """Parameters of each column."""
    context_features: int

    def __call__(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(*batch, features)`` to ``(*batch, features, params)``."""
        ...

    def stepper(self, context: Tensor | None, batch_shape: torch.Size) -> Stepper:
        """The same pass, a column at a time; ``nets.FullPasses`` steps any net, at D times the work."""
        ...


class ImageNet(Protocol):
    """A net from images to images of the same height and width. ``ImageCoupling`` takes one.

    Shape: ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.
    """

    in_shape: torch.Size
    """``(channels, height, width)`` of what it takes; the channels may be 0."""
    out_shape: torch.Size
    context_shape: torch.Size | None
    """A vector ``(n,)``, an image ``(c, h, w)`` of any height and width, or None."""

    def __call__(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(*batch, *in_shape)`` to ``(*batch, *out_shape)``."""
        ...


class CausalNet(Protocol):
    """A net over a sequence of vectors; the parameters of one see those before it, and context.

    ``AutoregressiveTokens`` takes one.
    """

    length: int
    """Vectors in the sequence."""
    width: int
    """Numbers in each."""
    params: int
    """Parameters of each number."""
    context_shape: torch.Size | None

    def __call__(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(*batch, length, width)`` to ``(*batch, length, width, params)``."""
        ...

    def stepper(self, context: Tensor | None, batch_shape: torch.Size) -> Stepper:
        """One pass, a vector at a time: takes the one before, ``(*batch, width)``, gives ``(*batch, width,
        params)``."""
        ...


class Windows(Protocol):
    """One pass of a causal net in windows: the parameters of the next vectors, were they as guessed."""

    def propose(self, guess: Tensor) -> Tensor:
        """``(*batch, n, width)`` to ``(*batch, n, width, params)``; as often as wanted."""
        ...

    def accept(self, vectors: Tensor) -> None:
        """Go on behind these n, which must be the last that were proposed."""
        ...


class Windowed(ABC):
    """A causal net that keeps what it needs of earlier vectors and takes several new ones at once.

    ``Jacobi(window=n)`` needs one.
    """

    @abstractmethod
    def windows(self, context: Tensor | None, batch_shape: torch.Size) -> Windows:
        """A pass over nothing yet."""
