"""``Flow``: what a user holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, overload

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution, constraints

from diffeo.bases.base import Base
from diffeo.bijections.base import Bijection
from diffeo.contracts import Initializable
from diffeo.encodings.base import Encoding
from diffeo.encodings.context import ContextEncoding
from diffeo.errors import ConfigError, DataError, DomainError, ShapeError
from diffeo.functional.domains import describe, same_interval
from diffeo.functional.shapes import broadcast_batch, check_context, whole_shape


class Builder(Protocol):
    """What builds flows: a preset, as a flow knows it."""

    def build(self, encoding: Encoding | None = None) -> Flow: ...


class Flow(nn.Module, Initializable):
    """A bijection, a base density and, where the data need it, an encoding.

    The density is ``log p(x) = log p_base(f(x)) + log|det df/dx|``, in nats per data point and in
    the data's own units.

    Args:
        bijection: takes data (behind the encoding, if any) to latent.
        base: density over the latent space; its event shape is the bijection's latent shape.
        encoding: turns data that are not real vectors yet into such; None when they are.
        context_encoding: takes the user's context to the vector that the layers see.

    Shape:
        ``x``: ``(*batch, *event_shape)``, ``context``: ``(*batch, *context_shape)``; batch axes
        broadcast, aligned at the right.

    Raises:
        ShapeError: where shapes do not fit, here or at a call; it names both.
        DataError: for points of another dtype than the flow's.
        ContextError: for a context that is missing or not wanted.
        DomainError: when the bijection's codomain is not the base's support.

    Example:
        >>> import torch, diffeo
        >>> flow = diffeo.presets.NSF(features=2).build()
        >>> flow.log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
        >>> flow.sample((3,)).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        bijection: Bijection,
        base: Base,
        encoding: Encoding | None = None,
        context_encoding: ContextEncoding | None = None,
    ):
        super().__init__()
        if base.event_shape != bijection.latent_shape:
            raise ShapeError(
                f"the bijection's latent shape is {tuple(bijection.latent_shape)} but the base has "
                f"event shape {tuple(base.event_shape)}; give the base the latent shape."
            )
        if bijection.codomain is not None and not same_interval(bijection.codomain, base.support):
            raise DomainError(
                f"the bijection ends on {describe(bijection.codomain)} but the base lives on "
                f"{describe(base.support)}; add a map between them or change the base."
            )
        if encoding is not None and encoding.latent_shape != bijection.event_shape:
            raise ShapeError(
                f"the encoding gives vectors of shape {tuple(encoding.latent_shape)} but the "
                f"bijection takes {tuple(bijection.event_shape)}."
            )
        inner = {p.context_shape for p in (bijection, base) if p.context_shape is not None}
        if context_encoding is not None:
            inner.add(context_encoding.latent_shape)
        if len(inner) > 1:
            raise ShapeError(f"the parts want contexts of different shapes: {sorted(map(tuple, inner))}.")
        self.bijection = bijection
        self.base = base
        self.encoding = encoding
        self.context_encoding = context_encoding
        self.preset: Builder | None = None
        """What built this flow, and builds it again from a file; None for one built by hand."""
        self.notes: dict[str, Any] = {}
        """Plain JSON that goes into the flow's file and comes back: what is to be known of the model."""
        self.event_shape = bijection.event_shape if encoding is None else encoding.event_shape
        self.latent_shape = bijection.latent_shape
        own = next(iter(inner), None)
        self.context_shape = own if context_encoding is None else context_encoding.event_shape

    # -- density ------------------------------------------------------------------------------

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.log_prob(x, context)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of ``x`` in nats, shape ``(*batch,)``; -inf outside the data's support."""
        if self.encoding is None:
            return self._log_prob(*self._enter(x, context))
        draws = self.draw_log_probs(x, context)
        return draws[0] if len(draws) == 1 else draws.logsumexp(0) - math.log(len(draws))

    def draw_log_probs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The log-likelihood at each of the encoding's K draws, ``(K, *batch)``; K = 1 without one.

        ``log_prob`` is the log of their mean; their spread tells how sure it is.
        """
        x, context = self._enter(x, context)
        if self.encoding is None:
            return self._log_prob(x, context).unsqueeze(0)
        v, log_weight = self.encoding.encode(x)
        if context is not None:
            context = context.expand(len(v), *context.shape)
        return self._log_prob(v, context) + log_weight

    def _enter(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Points and context, checked and broadcast, the context as the layers see it."""
        self._check_dtype(x, "x")
        x, context = broadcast_batch(x, context, self.event_shape, self.context_shape)
        return x, self._encode_context(context)

    def _log_prob(self, v: Tensor, context: Tensor | None) -> Tensor:
        z, log_det = self.bijection(v, context)
        return self.base.log_prob(z, context) + log_det

    # -- samples ------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        sample_shape: int | Sequence[int] = (),
        context: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> Tensor:
        """Draws of shape ``(*sample, *batch, *event)``, one set per context; no gradients."""
        z, context = self._draw(sample_shape, context, generator)
        x = self.bijection.pull(z, context)
        return x if self.encoding is None else self.encoding.decode(x)

    def sample_and_log_prob(
        self,
        sample_shape: int | Sequence[int] = (),
        context: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draws and their log-densities from one inverse pass; reparameterized gradients."""
        z, context = self._draw(sample_shape, context, generator)
        x, log_det = self.bijection.inverse(z, context)
        if self.encoding is None:
            return x, self.base.log_prob(z, context) - log_det
        if not self.encoding.exact:
            raise ConfigError(
                "the likelihood behind this encoding is a bound, so a sample's log-density does not "
                "come with the sample; call sample, then log_prob."
            )
        x = self.encoding.decode(x)
        _, log_weight = self.encoding.encode(x)
        return x, self.base.log_prob(z, context) - log_det + log_weight[0]

    # -- the map ------------------------------------------------------------------------------

    def to_latent(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Data to latent values; the pair with its log-det is ``flow.bijection.forward``."""
        x, context = broadcast_batch(x, context, self.event_shape, self.context_shape)
        context = self._encode_context(context)
        if self.encoding is not None:
            x = self.encoding.encode(x)[0][0]
        return self.bijection.push(x, context)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Latent values to data."""
        z, context = broadcast_batch(z, context, self.latent_shape, self.context_shape, "z")
        x = self.bijection.pull(z, self._encode_context(context))
        return x if self.encoding is None else self.encoding.decode(x)

    def distribution(self, context: Tensor | None = None) -> Distribution:
        """This flow as a ``torch.distributions.Distribution``, at a fixed context."""
        return FlowDistribution(self, context)

    def without_encoding(self) -> Flow:
        """The flow of the encoded vectors alone: the same bijection, base and context.

        Its ``log_prob`` takes what ``encoding.encode`` gives and is differentiable in it, where data may be
        whole numbers. The parts are shared; preset and notes are not, as no preset builds this flow.
        """
        flow = Flow(self.bijection, self.base, None, self.context_encoding)
        flow.training = self.training  # without recursion: the parts are in modes of their own
        return flow

    # -- set from data ------------------------------------------------------------------------

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set the data-dependent parts (standardization, ActNorm) from training rows."""
        x, context = broadcast_batch(x, context, self.event_shape, self.context_shape)
        if self.context_encoding is not None and context is not None:
            self.context_encoding.initialize(context)
            context = self.context_encoding(context)
        if isinstance(self.encoding, Initializable):
            self.encoding.initialize(x, context)
        if isinstance(self.bijection, Initializable):
            v = x if self.encoding is None else self.encoding.encode(x)[0][0]
            self.bijection.initialize(v, context)
        if isinstance(self.base, Initializable):
            v = x if self.encoding is None else self.encoding.encode(x)[0][0]
            self.base.initialize(self.bijection.push(v, context), context)

    # -- inside -------------------------------------------------------------------------------

    def _check_dtype(self, t: Tensor, what: str) -> None:
        dtype = next((p.dtype for p in self.parameters()), t.dtype)
        _check_precision(dtype)
        if self.encoding is None and t.dtype != dtype:
            raise DataError(f"{what} is {t.dtype} but this flow is {dtype}; pass {what}.to({dtype}).")

    def _encode_context(self, context: Tensor | None) -> Tensor | None:
        return context if self.context_encoding is None or context is None else self.context_encoding(context)

    def _draw(
        self, sample_shape: int | Sequence[int], context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor | None]:
        """Draws of the base, and the context as the layers see it, one for each."""
        shape = whole_shape(sample_shape)
        batch = check_context(context, self.context_shape)
        if batch is not None and (context := self._encode_context(context)) is not None:
            shape += batch
            context = context.expand(*shape, *context.shape[len(batch) :])
        z = self.base.sample(shape, context, generator=generator)
        _check_precision(z.dtype)
        return z, context


def _check_precision(dtype: torch.dtype) -> None:
    if dtype in (torch.float16, torch.bfloat16):
        raise DataError(
            f"a flow computes in float32 or float64, not in {dtype}, where a density has three digits; call "
            f"flow.float(). Training may multiply in it: OptimizerSettings(matmul_dtype=torch.bfloat16)."
        )


class FlowDistribution(Distribution):
    """``log_prob``, ``sample`` and ``rsample`` of a flow at a fixed context."""

    arg_constraints: dict[str, constraints.Constraint] = {}  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    has_rsample = True

    def __init__(self, flow: Flow, context: Tensor | None = None, batch_shape: Sequence[int] = ()):
        self.flow, self.context = flow, context
        batch = torch.Size(batch_shape)
        if context is not None and flow.context_shape is not None:
            batch = context.shape[: context.dim() - len(flow.context_shape)]
        super().__init__(batch, flow.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        domain = None if self.flow.encoding is not None else self.flow.bijection.domain
        return constraints.independent(domain or constraints.real, len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        log_prob = self.flow.log_prob(value, self.context)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.flow.sample(self._shape(sample_shape), self.context)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.flow.sample_and_log_prob(self._shape(sample_shape), self.context)[0]

    def _shape(self, sample_shape: Sequence[int]) -> torch.Size:
        """What the flow is asked for: with a context it adds the batch itself."""
        return whole_shape(sample_shape) + (torch.Size() if self.context is not None else self.batch_shape)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> FlowDistribution:
        context = self.context
        if context is not None and self.flow.context_shape is not None:
            context = context.expand((*batch_shape, *self.flow.context_shape))
        return FlowDistribution(self.flow, context, batch_shape)


@contextmanager
def evaluating(flow: Flow) -> Iterator[None]:
    """The flow in evaluation mode; every layer's own mode is put back, whatever happens inside."""
    modes = [(module, module.training) for module in flow.modules()]
    flow.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def device_of(flow: Flow) -> torch.device:
    """Where the flow computes: where its parameters are, or its buffers; the CPU for one without any."""
    return next((t.device for t in (*flow.parameters(), *flow.buffers())), torch.device("cpu"))


@overload
def in_parts(
    flow: Flow, function: Callable[..., Tensor], *tensors: Tensor | None, batch_size: int
) -> Tensor: ...
@overload
def in_parts(
    flow: Flow, function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor | None, batch_size: int
) -> tuple[Tensor, ...]: ...
@torch.no_grad()
def in_parts(
    flow: Flow, function: Callable[..., Any], *tensors: Tensor | None, batch_size: int
) -> Tensor | tuple[Tensor, ...]:
    """``function`` of tensors of many rows, a part of the rows at a time: evaluation of any kind.

    Meanwhile every layer is in evaluation mode, and has its own mode again afterwards; nothing records
    gradients; the function sees its part on the flow's device. To draw ``n`` samples, let the rows be
    ``torch.arange(n)`` and the function draw as many as it is given.

    Args:
        flow: whose modes and device these are.
        function: takes a part of each tensor and gives one tensor or several, rows first.
        tensors: rows first, equally many; a None stays None.
        batch_size: rows a part, at least 1.

    Returns:
        The answers of all parts one after the other, on the first tensor's device.

    Raises:
        ConfigError: for a ``batch_size`` below 1.

    Example:
        >>> import torch, diffeo
        >>> flow = diffeo.presets.NSF(features=2).build()
        >>> in_parts(flow, flow.log_prob, torch.zeros(10, 2), batch_size=4).shape
        torch.Size([10])
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}.")
    given = [t for t in tensors if t is not None]
    rows, home, device = len(given[0]), given[0].device, device_of(flow)
    starts = range(0, max(rows, 1), batch_size)  # of no rows one part: it has the answer's shape
    with evaluating(flow):
        parts = [
            function(*(None if t is None else t[i : i + batch_size].to(device) for t in tensors))
            for i in starts
        ]
    if isinstance(parts[0], Tensor):
        return torch.cat(parts).to(home)
    return tuple(torch.cat(column).to(home) for column in zip(*parts, strict=True))
