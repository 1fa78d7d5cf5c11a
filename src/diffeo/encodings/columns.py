"""``Columns``: the encoding of a table's rows as standardized real vectors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffeo.encodings.base import Encoding
from diffeo.encodings.column_kind import Kind, finite_number
from diffeo.encodings.kinds import Bounded, kind_from_json
from diffeo.errors import Cure, DataError, FormatError

DTYPES = (
    "bool",
    "float16",
    "float32",
    "float64",
    *(f"{s}int{n}" for s in ("", "u") for n in (8, 16, 32, 64)),
)
_MOST_COLUMNS, _MOST_DRAWS, _LONGEST_NAME = 100_000, 4096, 10_000
_MOST_NOISE = 2**22
"""Numbers of noise that one encoding keeps: draws times columns."""


@dataclass(frozen=True)
class Column:
    """A column's name, kind, storage type, and the moments that standardize it: all its coordinates alike."""

    name: str
    kind: Kind
    dtype: str = "float64"
    loc: float = 0.0
    scale: float = 1.0

    @classmethod
    def fit(cls, name: str, kind: Kind, dtype: str, values: np.ndarray) -> Column:
        """Take the moments from training ``values``, all of which must lie in the kind's support.

        The scale is that of the dequantized values, so never below 0.29 steps of a lattice; a
        column that does not vary here gets scale 1.
        """
        x = torch.from_numpy(np.array(values, dtype=np.float64))[:, None]
        real, log_weight = kind.encode(x, x.new_zeros(len(x), kind.noise), precision(dtype))
        bad = np.flatnonzero(~np.isfinite(log_weight[:, 0].numpy()))
        if len(bad):
            whole = isinstance(kind, Bounded) and bool((x == x.round()).all())
            low, high = float(x.min()), float(x.max())
            other = f"integer({low:.10g}, {high:.10g})" if whole and low < high else "continuous"
            raise DataError(
                f"column {name!r} is {kind}, but row {bad[0] + 1} holds {x[bad[0], 0]:.10g}"
                + (f" ({len(bad)} rows do not fit)" if len(bad) > 1 else "")
                + f"; drop such rows, or declare the column differently: columns={{{name!r}: {other!r}}}.",
                cure=Cure("columns", {name: other}),
            )
        if not (kind.width and kind.standardized):
            return cls(name, kind, dtype)
        size = float(real.abs().max()) or 1.0  # the squares of huge values would overflow
        unit = real.numpy() / size
        loc, scale = float(unit.mean()) * size, float(unit.std()) * size
        scale = math.hypot(scale, kind.noise_std)
        return cls(name, kind, dtype, loc, scale if scale > 0 and math.isfinite(scale) else 1.0)

    @property
    def sample_dtype(self) -> str:
        """What samples are stored in: the original type unless it cannot hold them."""
        low, high = _tighten(*self.kind.drawn, self.dtype)
        fits = self.kind.whole or self.dtype.startswith("float")
        return self.dtype if low <= high and fits else "float64"

    @property
    def storable(self) -> tuple[float, float]:
        """The smallest and largest value that lie in the support and survive storage."""
        low, high = _tighten(*self.kind.drawn, self.sample_dtype)
        return (low, high) if self.dtype.startswith("float") else self.kind.inner(low, high)


class Columns(Encoding):
    """Takes a table's rows to standardized real vectors and back, in the data's own units.

    Continuous columns are shifted and scaled; positive ones go through a logarithm, bounded ones
    through a logit, circular ones become angles in [-pi, pi); constant ones are set aside. All of
    these are exact. Integer and lattice columns are dequantized, and the log-likelihood

        log 1/K sum_k p(x + step * u_k) * step

    is a log mass in these columns and a log-density in the others; its expectation is a lower bound
    (Jensen). Training draws one u per row; evaluation uses K fixed ones, the same for every row,
    stratified in every column.

    Rows come as float64 (or float32) and are standardized in float64 before they are cast to the
    model's own dtype, so that a large offset costs no precision. The moments are not buffers:
    ``.to(dtype)`` changes what the model computes in, never what it knows of the data. Samples are
    float64 and never leave a column's support.

    Args:
        columns: the density's columns, in the table's order.
        given: names of the columns the density is conditioned on.
        weights: name of the column that weighted the training rows.
        num_draws: K, from 1 to 4096.

    Shape:
        rows ``(*batch, columns)``; encoded ``(K, *batch, free columns)``.

    Raises:
        DataError: when no column varies, or a name appears twice, or there are draws of too many columns.

    Example:
        >>> import torch
        >>> from diffeo.encodings.kinds import Continuous, Positive
        >>> columns = Columns([Column("a", Continuous(), scale=2.0), Column("b", Positive())])
        >>> columns.encode(torch.tensor([4.0, 1.0], dtype=torch.float64))
        (tensor([[2., 0.]]), tensor([-0.6931]))
    """

    dtype_buffer: Tensor

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        given: Sequence[str] = (),
        weights: str | None = None,
        num_draws: int = 16,
    ):
        super().__init__()
        self.columns, self.weights = tuple(columns), weights
        self.given = (given,) if isinstance(given, str) else tuple(given)
        self.num_draws = num_draws
        self.names = tuple(c.name for c in columns)
        every = (*self.names, *self.given, *(() if weights is None else (weights,)))
        twice, count = Counter(every).most_common(1)[0] if every else ("", 0)
        if count > 1:
            raise DataError(f"the name {twice!r} is used for two columns; rename one.")
        own = [c for c in columns for _ in range(c.kind.width)]  # the column of each latent coordinate
        if not own:
            raise DataError("no column varies, so there is nothing to model; add a column that does.")
        self.circular = tuple(c.kind.angles for c in own)
        """Which latent coordinates are angles: they want a circular family."""
        self.dtypes = tuple(c.sample_dtype for c in columns)
        """What each column's samples are stored in."""
        noise = sum(c.kind.noise for c in columns)
        if num_draws * noise > _MOST_NOISE:
            raise DataError(
                f"{num_draws} draws for each of {noise:,} columns are too many; {_MOST_NOISE // noise} fit."
            )
        self.exact = not noise
        self.event_shape = torch.Size((len(columns),))
        self.latent_shape = torch.Size((len(own),))
        self.register_buffer("dtype_buffer", torch.zeros(()), persistent=False)  # carries the model's dtype

        self._groups = _groups(self.columns)
        self._order = _inverse([i for g in self._groups for i in g.latent])
        self._order_all = _inverse([i for g in self._groups for i in g.columns])
        self._loc = _vector(c.loc for c in own)
        self._scale = _vector(c.scale for c in own)
        self._log_scale = float(self._scale.log().sum())
        ends = [c.storable for c in columns]
        self._low, self._high = _vector(low for low, _ in ends), _vector(high for _, high in ends)
        self._single = [c.kind.noise > 0 and c.dtype == "float32" for c in columns]
        self._fixed_noise = _stratified(num_draws, noise)

    @property
    def dtype(self) -> torch.dtype:
        """The model's dtype, which ``encode`` answers in."""
        return self.dtype_buffer.dtype

    # -- rows and real vectors -----------------------------------------------------------------------------

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        eps = torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0
        x = x.double()
        noise = self._noise(x)
        parts: list[Tensor] = []
        log_weight = x.new_full((), -self._log_scale)
        for g in self._groups:
            own = None if noise is None else g.split(noise[..., g.noise], g.kind.noise)
            real, weight = g.kind.encode(_pick(x, g.columns).unsqueeze(-1), own, max(eps, g.eps))
            log_weight = log_weight + weight.squeeze(-1).sum(-1)
            parts.append(real.flatten(-2))
        num_draws = 1 if noise is None else len(noise)
        real = torch.cat([p.expand(num_draws, *x.shape[:-1], p.shape[-1]) for p in parts], -1)
        v = (_pick(real, self._order) - self._loc.to(x.device)) / self._scale.to(x.device)
        v = v.to(self.dtype)
        limits = self._limits(v)
        return v.clamp(-limits, limits), log_weight.to(v.dtype).expand(num_draws, *x.shape[:-1])

    def decode(self, v: Tensor) -> Tensor:
        real = v.double() * self._scale.to(v.device) + self._loc.to(v.device)
        parts = [
            g.kind.decode(g.split(_pick(real, g.latent), g.kind.width)).squeeze(-1) for g in self._groups
        ]
        x = _pick(torch.cat(parts, -1), self._order_all)
        x = x.clamp(self._low.to(x.device), self._high.to(x.device))  # lets NaN through
        if any(self._single):
            # the value of a cell as it was stored: 0.3 in float32 is not 0.3 in float64
            x = torch.where(torch.tensor(self._single, device=x.device), x.float().double(), x)
        return x

    def nearest(self, x: Tensor) -> Tensor:
        """Rows with every value that lies between the points of its column's grid moved to the nearest."""
        x = x.double().clone()
        for g in self._groups:
            x[..., g.columns] = g.kind.nearest(x[..., g.columns], g.eps)
        return x

    def _noise(self, x: Tensor) -> Tensor | None:
        if self.exact:
            return None
        if self.training:
            shape = (1, *x.shape[:-1], self._fixed_noise.shape[-1])
            return torch.rand(shape, dtype=torch.float64, device=x.device) - 0.5
        noise = self._fixed_noise.to(x.device)
        return noise.reshape(len(noise), *[1] * (x.dim() - 1), -1).expand(-1, *x.shape[:-1], -1)

    def _limits(self, v: Tensor) -> Tensor:
        """Largest magnitude per coordinate: squares must not overflow, angles not pass pi."""
        big = v.new_full((len(self.circular),), torch.finfo(v.dtype).max ** 0.5)
        if not any(self.circular):
            return big
        pi = v.new_tensor(math.pi)
        pi = pi if float(pi) <= math.pi else torch.nextafter(pi, torch.zeros_like(pi))
        return torch.where(torch.tensor(self.circular, device=v.device), pi, big)

    # -- files --------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        return {
            "columns": [
                {"name": c.name, "kind": c.kind.to_json(), "dtype": c.dtype, "loc": c.loc, "scale": c.scale}
                for c in self.columns
            ],
            "given": list(self.given),
            "weights": self.weights,
            "draws": self.num_draws,
        }

    @classmethod
    def from_json(cls, spec: dict[str, Any]) -> Columns:
        if not isinstance(spec, dict) or set(spec) != {"columns", "given", "weights", "draws"}:
            raise FormatError("the table columns in this file are malformed: wrong entries.")
        columns = [_column_from_json(c) for c in _list(spec["columns"], "columns")]
        given = [_name(n) for n in _list(spec["given"], "given columns")]
        weights = None if spec["weights"] is None else _name(spec["weights"])
        num_draws = spec["draws"]
        if type(num_draws) is not int or not 1 <= num_draws <= _MOST_DRAWS:
            raise FormatError(f"the number of draws in this file is not between 1 and {_MOST_DRAWS}.")
        try:
            return cls(columns, given=given, weights=weights, num_draws=num_draws)
        except DataError as error:
            raise FormatError(f"the table columns in this file are malformed: {error}") from None


def delta_method(draws: Tensor) -> tuple[Tensor, Tensor]:
    """The log of a mean of K draws, and its standard error.

    For ``l_k = log w_k`` on the first axis: ``log mean(w)``, with standard error
    ``sd(w) / (mean(w) sqrt(K))``. The draws of ``Columns`` are stratified, so that for them the
    error is an upper estimate. With K = 1 it is 0: there an exact encoding has no error.

    Example:
        >>> delta_method(torch.tensor([1.0, 3.0]).log())
        (tensor(0.6931), tensor(0.5000))
    """
    k = len(draws)
    log_prob = draws.logsumexp(0) - math.log(k)
    if k == 1:
        return log_prob, torch.zeros_like(log_prob)
    # weights relative to their mean; a row of zero likelihood is known exactly
    relative = torch.where(log_prob == -math.inf, torch.zeros_like(draws), draws - log_prob).exp()
    return log_prob, relative.std(0) / math.sqrt(k)


def precision(dtype: str) -> float:
    """The relative precision of a storage type; 0 for integers."""
    return float(np.finfo(dtype).eps) if dtype.startswith("float") else 0.0


@dataclass(frozen=True)
class _Group:
    """Columns of one kind and precision: they go through their map together."""

    kind: Kind
    eps: float
    columns: list[int]
    latent: list[int]
    noise: list[int]

    def split(self, t: Tensor, size: int) -> Tensor:
        """``(..., columns * size)`` to ``(..., columns, size)``."""
        return t.reshape(*t.shape[:-1], len(self.columns), size)


def _groups(columns: Sequence[Column]) -> list[_Group]:
    found: dict[tuple[Kind, float], _Group] = {}
    latent = noise = 0
    for i, c in enumerate(columns):
        key = c.kind, precision(c.dtype)
        group = found.setdefault(key, _Group(*key, [], [], []))
        group.columns.append(i)
        group.latent.extend(range(latent, latent := latent + c.kind.width))
        group.noise.extend(range(noise, noise := noise + c.kind.noise))
    return list(found.values())


def _stratified(num_draws: int, columns: int) -> Tensor:
    """K points of [-1/2, 1/2)^columns, one in every K-th of every column (a Latin hypercube).

    numpy's legacy generator is frozen, so that a model scores alike under every release.
    """
    rng = np.random.RandomState(0)
    strata = [rng.permutation(num_draws) for _ in range(columns)]
    points = (np.array(strata, dtype=np.float64).reshape(columns, num_draws).T + 0.5) / num_draws - 0.5
    return torch.from_numpy(np.ascontiguousarray(points))


def _tighten(low: float, high: float, dtype: str) -> tuple[float, float]:
    if not dtype.startswith("float"):
        ends = (0, 1) if dtype == "bool" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
        return max(low, float(ends[0])), min(high, float(ends[1]))
    with np.errstate(over="ignore"):
        a, b = np.dtype(dtype).type(low), np.dtype(dtype).type(high)
        a = np.nextafter(a, np.inf, dtype=dtype) if float(a) < low else a
        b = np.nextafter(b, -np.inf, dtype=dtype) if float(b) > high else b
    return float(a), float(b)


def _pick(t: Tensor, index: list[int]) -> Tensor:
    whole = len(index) == t.shape[-1] and index == list(range(len(index)))
    return t if whole else t[..., index]


def _inverse(order: list[int]) -> list[int]:
    """Where in ``order`` each of its members, sorted, is found."""
    return np.argsort(order).tolist()


def _vector(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > _MOST_COLUMNS:
        raise FormatError(f"the {what} in this file are not a list of at most {_MOST_COLUMNS}.")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_NAME:
        raise FormatError("a column name in this file is not text, or far too long.")
    return value


def _column_from_json(spec: Any) -> Column:
    if not isinstance(spec, dict) or set(spec) != {"name", "kind", "dtype", "loc", "scale"}:
        raise FormatError("a column in this file has the wrong entries.")
    kind, name = kind_from_json(spec["kind"]), _name(spec["name"])
    if spec["dtype"] not in DTYPES:
        raise FormatError(f"column {name!r} in this file has an unknown storage type.")
    loc = finite_number(spec["loc"], "a column's loc")
    scale = finite_number(spec["scale"], "a column's scale")
    if scale <= 0 or not (kind.standardized or (loc, scale) == (0.0, 1.0)):
        raise FormatError(f"column {name!r} in this file has a scale that cannot be.")
    return Column(name, kind, spec["dtype"], loc, scale)
