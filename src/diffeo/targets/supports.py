"""Where constrained parameters live, and the fixed map from real columns onto each such set.

Kinds of table columns (``diffeo.encodings.kinds``) have some of these names with other maps: there
``Bounded`` is a logit, here the probit that takes the uniform density to the normal.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from diffeo.bijections.fixed import Exp, Probit
from diffeo.errors import ConfigError, DataError
from diffeo.functional.simplex import from_simplex, to_simplex


class Support(ABC):
    """A set of ``values`` numbers and a smooth bijection of R^``columns`` onto its interior."""

    @property
    @abstractmethod
    def columns(self) -> int:
        """How many real numbers it takes to say where one is."""

    @property
    def values(self) -> int:
        """How many numbers a point of it has."""
        return self.columns

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a point: ``()`` for one number."""
        return () if self.values == 1 else (self.values,)

    @abstractmethod
    def constrain(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """``(rows, columns)`` to points ``(rows, values)`` and the log-det ``(rows,)``; never NaN."""

    def unconstrain(self, x: Tensor) -> Tensor:
        """``constrain`` undone: ``(rows, values)`` to ``(rows, columns)``; refuses points outside."""
        inside = self._inside(x)
        if not inside.all():
            row = int((~inside).nonzero()[0])
            raise DataError(f"row {row}, {x[row].tolist()}, is not in {self}; give points inside.")
        return self._unmap(x)

    @abstractmethod
    def _inside(self, x: Tensor) -> Tensor:
        """Which rows are in the set."""

    @abstractmethod
    def _unmap(self, x: Tensor) -> Tensor: ...


class _Alike(Support):
    """n parameters of one kind, each from a column of its own."""

    n: int

    def __post_init__(self) -> None:
        _whole(self.n, "n", 1, self)

    @property
    def columns(self) -> int:
        return self.n


@final
@dataclass(frozen=True)
class Real(_Alike):
    """The whole line, as it is.

    Args:
        n: how many parameters.

    Example:
        >>> import torch
        >>> from diffeo.targets import Real
        >>> Real(2).constrain(torch.ones(1, 2))
        (tensor([[1., 1.]]), tensor([0.]))
    """

    n: int = 1

    def constrain(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return u, torch.zeros_like(u[:, 0])

    def _inside(self, x: Tensor) -> Tensor:
        return x.isfinite().all(-1)

    def _unmap(self, x: Tensor) -> Tensor:
        return x


@final
@dataclass(frozen=True)
class Positive(_Alike):
    """Greater than zero: rates, scales, precisions. ``x = exp(u)``.

    Where exp(u) would overflow (u > 708 in float64), the mass is zero: the log-det is -inf.

    Args:
        n: how many parameters.

    Example:
        >>> import torch
        >>> from diffeo.targets import Positive
        >>> Positive().constrain(torch.zeros(1, 1))
        (tensor([[1.]]), tensor([0.]))
    """

    n: int = 1

    def constrain(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return _exp(u)

    def _inside(self, x: Tensor) -> Tensor:
        return ((x > 0) & (x < math.inf)).all(-1)

    def _unmap(self, x: Tensor) -> Tensor:
        return x.log()


@final
@dataclass(frozen=True)
class Above(_Alike):
    """Greater than a number: ``x = low + exp(u)``, never rounded to ``low`` itself.

    Args:
        low: the lower end, finite.
        n: how many parameters.

    Example:
        >>> import torch
        >>> from diffeo.targets import Above
        >>> Above(2.0).constrain(torch.zeros(1, 1))[0]
        tensor([[3.]])
    """

    low: float
    n: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _finite(self.low, "low", self)

    def constrain(self, u: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = _exp(u)
        return _strictly(self.low + x, self.low, math.inf), log_det

    def _inside(self, x: Tensor) -> Tensor:
        return ((x > self.low) & (x < math.inf)).all(-1)

    def _unmap(self, x: Tensor) -> Tensor:
        return (x - self.low).log()


@final
@dataclass(frozen=True)
class Below(_Alike):
    """Less than a number: ``x = high - exp(-u)``, never rounded to ``high`` itself; increasing in u.

    Args:
        high: the upper end, finite.
        n: how many parameters.

    Example:
        >>> import torch
        >>> from diffeo.targets import Below
        >>> Below(2.0).constrain(torch.zeros(1, 1))[0]
        tensor([[1.]])
    """

    high: float
    n: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _finite(self.high, "high", self)

    def constrain(self, u: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = _exp(-u)
        return _strictly(self.high - x, -math.inf, self.high), log_det

    def _inside(self, x: Tensor) -> Tensor:
        return ((x < self.high) & (x > -math.inf)).all(-1)

    def _unmap(self, x: Tensor) -> Tensor:
        return -(self.high - x).log()


@final
@dataclass(frozen=True)
class Bounded(_Alike):
    """Between two numbers: ``x = low + (high - low) Phi(u)``, with Phi the normal distribution function.

    What is uniform on the interval is standard normal in u, where a logistic map would give it the logistic's
    heavier tails: flows start from a normal. x is never rounded to an end.

    Args:
        low: the lower end, finite.
        high: the upper end, greater.
        n: how many parameters.

    Example:
        >>> import torch
        >>> from diffeo.targets import Bounded
        >>> Bounded(0.0, 4.0).constrain(torch.zeros(1, 1))[0]
        tensor([[2.]])
    """

    low: float
    high: float
    n: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -math.inf < self.low < self.high < math.inf:
            raise ConfigError(f"{self}: low and high must be finite, and low < high.")

    def constrain(self, u: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = Probit((self.n,), self.low, self.high).inverse(u)
        return _strictly(x, self.low, self.high), log_det

    def _inside(self, x: Tensor) -> Tensor:
        return ((x > self.low) & (x < self.high)).all(-1)

    def _unmap(self, x: Tensor) -> Tensor:
        return Probit((self.n,), self.low, self.high).push(x)


@final
@dataclass(frozen=True)
class Circular(_Alike):
    """An angle in [-pi, pi): ``x = 2 pi (Phi(u) - 1/2)``, with Phi the normal distribution function.

    A map of the line covers the circle once, but for one point: the seam, at +-pi. It is torn open there, so
    that a density which does not vanish at the seam has two tails in u, each falling like the normal's, and
    a mode at the seam becomes one on each side. Turn the angle so that its mode is near 0 where you can. A
    uniform angle is exactly standard normal in u.

    ``unconstrain`` takes any angle and turns it into [-pi, pi).

    Args:
        n: how many angles.

    Example:
        >>> import torch
        >>> from diffeo.targets import Circular
        >>> Circular().constrain(torch.tensor([[0.0], [9.0]]))[0]
        tensor([[0.0000], [3.1416]])
    """

    n: int = 1

    def constrain(self, u: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = Probit((self.n,), -math.pi, math.pi).inverse(u)
        return _strictly(x, -math.pi, math.pi), log_det

    def _inside(self, x: Tensor) -> Tensor:
        return x.isfinite().all(-1)

    def _unmap(self, x: Tensor) -> Tensor:
        x = x - 2 * math.pi * torch.floor((x + math.pi) / (2 * math.pi))
        return Probit((self.n,), -math.pi, math.pi).push(x.clamp(-math.pi, math.pi))


@final
@dataclass(frozen=True)
class Simplex(Support):
    """k positive numbers that sum to one, from k - 1 columns: proportions, mixture weights.

    The inverse isometric log-ratio: ``x = softmax(V u)``, symmetric in the weights; u = 0 is the uniform
    point. The density is one over the first k - 1 weights, as Dirichlet's is. No weight is rounded to 0.

    Args:
        k: how many numbers, at least 2.

    Example:
        >>> import torch
        >>> from diffeo.targets import Simplex
        >>> Simplex(4).constrain(torch.zeros(1, 3))[0]
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """

    k: int

    def __post_init__(self) -> None:
        _whole(self.k, "k", 2, self)

    @property
    def columns(self) -> int:
        return self.k - 1

    @property
    def values(self) -> int:
        return self.k

    def constrain(self, u: Tensor) -> tuple[Tensor, Tensor]:
        log_x, log_det = to_simplex(u)
        return log_x.clamp_min(math.log(torch.finfo(u.dtype).tiny)).exp(), log_det

    def _inside(self, x: Tensor) -> Tensor:
        sums_to_one = (x.sum(-1) - 1).abs() < 1e-6
        return (x > 0).all(-1) & sums_to_one

    def _unmap(self, x: Tensor) -> Tensor:
        return from_simplex(x.log())


def _exp(u: Tensor) -> tuple[Tensor, Tensor]:
    """exp; of mass zero where it would overflow, since the log-det of a value that stays would grow on."""
    x, log_det = Exp((u.shape[-1],))(u)
    most = math.log(torch.finfo(u.dtype).max) - 1
    return x, torch.where((u > most).any(-1), -math.inf, log_det)


def _strictly(x: Tensor, low: float, high: float) -> Tensor:
    """Rounded values brought back between the ends; NaN stays."""
    ends = torch.tensor([low, high], dtype=x.dtype, device=x.device)
    inner = torch.nextafter(ends, ends.flip(0))
    return torch.minimum(torch.maximum(x, inner[0]), inner[1])


def _whole(n: int, name: str, least: int, support: Support) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < least:
        raise ConfigError(f"{support}: {name} must be a whole number of at least {least}.")


def _finite(end: float, name: str, support: Support) -> None:
    if not math.isfinite(end):
        raise ConfigError(f"{support}: {name} must be finite; Real() is the whole line.")
