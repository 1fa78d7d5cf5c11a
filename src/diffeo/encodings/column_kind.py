"""``Kind``: what a kind of column says of itself, and so all that a new one has to say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import MISSING, Field, asdict, dataclass, fields
from typing import Any, ClassVar

from torch import Tensor

from diffeo.errors import FormatError

LARGEST = 1.7976931348623157e308


@dataclass(frozen=True)
class Kind(ABC):
    """One kind of column: which values it may hold and how they become real numbers.

    A value becomes ``width`` real numbers: none where there is nothing to model, several where the line is
    too small. With ``noise`` uniform numbers to help, it may be any of many points, and its likelihood is
    the mean of ``p(point) exp(log_weight)`` over them: a mass for the cell of a discrete value.

    Works on float64 tensors. Outside the support ``encode`` gives finite numbers and a log-weight of -inf;
    NaN in, NaN out.
    """

    standardized: ClassVar[bool] = True
    """Whether the encoded values are to be shifted and scaled by the training rows' moments."""
    angles: ClassVar[bool] = False
    """Whether the encoded values are angles in [-pi, pi), which want a circular family."""
    declarable: ClassVar[bool] = True
    """Whether the user may say that a column is of this kind."""

    def __post_init__(self) -> None:
        for known in fields(self):  # so that a kind is what its file makes of it: 1.0 where the user wrote 1
            object.__setattr__(self, known.name, float(getattr(self, known.name)))

    @property
    def width(self) -> int:
        """How many latent coordinates a value takes."""
        return 1

    @property
    def noise(self) -> int:
        """How many uniform numbers ``encode`` takes for a value; 0 where the likelihood is exact."""
        return 0

    @property
    def noise_std(self) -> float:
        """The standard deviation of what the noise adds to a real number."""
        return 0.0

    @property
    @abstractmethod
    def support(self) -> tuple[float, float]:
        """The smallest and the largest allowed float64 value."""

    @property
    def drawn(self) -> tuple[float, float]:
        """Where samples lie: the support, but for a point it names twice."""
        return self.support

    @property
    def whole(self) -> bool:
        """Whether all values are whole numbers."""
        return False

    @abstractmethod
    def encode(self, x: Tensor, noise: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
        """Values to real numbers and the log-weights.

        Args:
            x: values, ``(..., 1)``.
            noise: uniform in [-1/2, 1/2), ``(K, ..., noise)``; None for kinds that take none.
            eps: the relative precision the values were stored with.

        Returns:
            ``(..., width)`` and ``(..., 1)``, with a leading axis of K where there is noise.
        """

    def decode(self, real: Tensor) -> Tensor:
        """Real numbers ``(..., width)`` to values ``(..., 1)``; the caller clamps them to the support."""
        return real

    def nearest(self, x: Tensor, eps: float) -> Tensor:
        """The kind's own value nearest to each, in its support; ``x`` itself where that is no matter of
        rounding, and outside the support.

        Args:
            x: values of any shape.
            eps: the relative precision the values were stored with.
        """
        return x

    def inner(self, low: float, high: float) -> tuple[float, float]:
        """The smallest and the largest of the kind's values between two numbers."""
        return low, high

    # -- as text and as JSON ------------------------------------------------------------------

    @classmethod
    def name(cls) -> str:
        """What the kind is called in text and files."""
        return cls.__name__.lower()

    @classmethod
    def usage(cls) -> str:
        """How the kind is declared: ``bounded(low, high)``."""
        needed = ", ".join(f.name for f in cls._arguments() if f.default is MISSING)
        return cls.name() + (f"({needed})" if needed else "")

    @classmethod
    def parse(cls, arguments: str) -> Kind:
        """The kind with what stands between its brackets; ``ValueError`` or ``TypeError`` if it cannot be."""
        return cls(*(float(text) for text in arguments.split(",") if arguments.strip()))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Kind:
        """The kind with the entries of ``to_json``; ``FormatError`` where they cannot be."""
        given = {
            f.name: finite_number(values[f.name], f"the {f.name} of a column")
            for f in cls._arguments()
            if f.name in values
        }
        wrong = FormatError(f"a {cls.name()} column in this file has the wrong entries.")
        try:
            kind = cls(**given)
        except TypeError:
            raise wrong from None
        # entries that later releases added have the defaults
        own = {f.name: getattr(kind, f.name) for f in fields(cls)}
        if own != own | values or not set(values) <= {f.name for f in fields(cls)}:
            raise wrong
        return kind

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.name(), **asdict(self)}

    def __str__(self) -> str:
        given = [getattr(self, f.name) for f in self._arguments()]
        for f in reversed(self._arguments()):
            if given[-1] != f.default:
                break
            given.pop()
        # whole numbers in full: rounded to six digits, an end would be another one
        values = ", ".join(f"{v:.16g}" if v == round(v) and abs(v) < 1e16 else f"{v:g}" for v in given)
        return self.name() + (f"({values})" if values else "")

    @classmethod
    def _arguments(cls) -> list[Field[Any]]:
        return [f for f in fields(cls) if f.init]

    def _outside(self, x: Tensor) -> Tensor:
        low, high = self.support
        return (x < low) | (x > high)  # False for NaN, which so passes through


def finite_number(value: Any, what: str) -> float:
    """``value`` as a float when it is a finite JSON number, else a ``FormatError``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise FormatError(f"{what} in this file is not a finite number.")
    return float(value)
