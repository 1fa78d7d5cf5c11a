"""Edits in a trained flow's latent space: interpolation, reconstruction, attributes, temperature.

Everything here is evaluation: without gradients, a part of the batch at a time, and with the flow in
evaluation mode, so that latents are the same every time. A flow in training mode (where a dequantization
draws fresh noise) is switched for the call and left as it was, layer by layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from diffeo.bases.normal import DiagonalNormal, Tempered
from diffeo.errors import ConfigError, ContextError, DataError, DomainError, ShapeError
from diffeo.flow import Flow, in_parts
from diffeo.functional.domains import bounds, describe
from diffeo.functional.shapes import batch_shape, broadcast_batch

__all__ = ["Linear", "Path", "Slerp", "attribute_vector", "interpolate", "reconstruct", "shift", "tempered"]


class Path(ABC):
    """A way from one latent vector to another; it begins exactly at the one and ends exactly at the other."""

    @abstractmethod
    def __call__(self, z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
        """Where each way is at the times ``t``, 0 at ``z0`` and 1 at ``z1``.

        Args:
            z0: flat latents, ``(*batch, D)``.
            z1: likewise.
            t: times in [0, 1], ``(steps,)``.

        Shape:
            Answer: ``(steps, *batch, D)``.
        """


@dataclass(frozen=True)
class Linear(Path):
    """The straight line: ``(1 - t) z0 + t z1``.

    For bases that are not a centered normal. With a normal of many dimensions its middle is nearer to the
    mode than nearly all of the mass: between two independent draws of norm r the norm falls to
    ``r / sqrt(2)``.

    Example:
        >>> Linear()(torch.tensor([0.0, 2.0]), torch.tensor([4.0, 0.0]), torch.tensor([0.0, 0.5]))
        tensor([[0., 2.],
                [2., 1.]])
    """

    def __call__(self, z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
        t = t.reshape(-1, *[1] * z0.dim())
        return (1 - t) * z0 + t * z1


@dataclass(frozen=True)
class Slerp(Path):
    """Along the arc around the origin, the norm changing evenly: as typical of a normal as its ends are.

    Formula: the norm is ``(1 - t) |z0| + t |z1|`` and the direction
    ``(sin((1 - t) a) u0 + sin(t a) u1) / sin a``, from the ends' directions u0 and u1, an angle a apart.

    Limits: where the arc is not unique it is the straight line. That is: an end of norm 0; ends in the same
    direction, up to the root of the dtype's precision; ends in opposite directions, whose line meets 0.

    References: Shoemake 1985, "Animating rotation with quaternion curves", section 3.3; White 2016, "Sampling
    generative networks", section 2.

    Example:
        >>> Slerp()(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0]), torch.tensor([0.5]))
        tensor([[2.1213, 2.1213]])
    """

    def __call__(self, z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
        line = Linear()(z0, z1, t)
        t = t.reshape(-1, *[1] * z0.dim())
        (u0, norm0), (u1, norm1) = _polar(z0), _polar(z1)
        # From the directions' difference and sum: acos of their product loses half of a small angle's digits.
        apart, along = (torch.linalg.vector_norm(u, dim=-1, keepdim=True) for u in (u1 - u0, u1 + u0))
        angle = 2 * torch.atan2(apart, along)
        direction = (((1 - t) * angle).sin() * u0 + (t * angle).sin() * u1) / angle.sin()
        arc = ((1 - t) * norm0 + t * norm1) * direction
        inside = (t > 0) & (t < 1)  # the line is exact at its ends
        # Where a norm is 0 or overflows the angle is NaN, which is not greater than anything.
        return torch.where(inside & (angle.sin() > torch.finfo(z0.dtype).eps ** 0.5), arc, line)


def _polar(z: Tensor) -> tuple[Tensor, Tensor]:
    """Direction and norm, by way of the largest entry, so that no square over- or underflows."""
    scaled = z / z.abs().amax(-1, keepdim=True)
    direction = scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return direction, (direction * z).sum(-1, keepdim=True)


def interpolate(
    flow: Flow,
    x0: Tensor,
    x1: Tensor,
    steps: int,
    context: Tensor | None = None,
    *,
    path: Path | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Data on the way from ``x0`` to ``x1``, along a path between their latents.

    The first and the last are the flow's reconstructions of ``x0`` and ``x1``: equal to them up to the
    round-off of the map and its inverse, and behind an encoding that rounds (pixels, whole numbers) equal
    exactly (to the bits that it keeps), as long as that round-off does not cross the edge between two values.

    Args:
        flow: any; switched to evaluation mode for the call.
        x0: where the ways begin.
        x1: where they end; the batch axes of the two broadcast.
        steps: points on each way, both ends counted; at least 2.
        context: one for both ends of a way and all between. A pair is refused, for what lies between two
            contexts is the caller's to say: ``flow.to_latent`` of each end, ``flow.to_data`` at any context.
        path: by default ``Slerp()`` over a normal base and ``Linear()`` over any other, which an arc might
            leave. It acts on the whole latent, flat: on all the levels of a multiscale flow at once.
        batch_size: points that go through the flow at a time.

    Shape:
        ``x0``, ``x1``: ``(*batch, *event)``, ``context``: ``(*batch, *context_shape)``,
        answer: ``(steps, *batch, *event)``.

    Raises:
        ConfigError: for fewer than 2 steps.
        ContextError: for a context that is missing, not wanted, or a pair.
        DomainError: when the path leaves the base's support.

    References: Kingma and Dhariwal 2018, "Glow", section 6, figure 5.

    Example:
        >>> import diffeo
        >>> flow = diffeo.presets.NSF(features=2).build()
        >>> interpolate(flow, torch.zeros(4, 2), torch.ones(4, 2), steps=5).shape
        torch.Size([5, 4, 2])
    """
    if steps < 2:
        raise ConfigError(f"an interpolation has at least 2 steps, its ends; got steps={steps}.")
    if isinstance(context, tuple | list):
        raise ContextError("interpolate takes one context, for both ends; got several: pass one tensor.")
    z0 = _to_latent(flow, x0, context, batch_size)
    z1 = _to_latent(flow, x1, context, batch_size)
    event = flow.latent_shape
    flat = [z.reshape(*batch_shape(z, event, "z"), event.numel()) for z in _same_batch(z0, z1)]
    if path is None:
        path = Slerp() if isinstance(flow.base, DiagonalNormal) else Linear()
    t = torch.linspace(0, 1, steps, dtype=z0.dtype, device=z0.device)
    z = path(flat[0], flat[1], t)
    z = z.reshape(*z.shape[:-1], *event)
    low, high = (torch.as_tensor(end).to(z) for end in bounds(flow.base.support))
    if bool(((z < low) | (z > high)).any()):
        raise DomainError(
            f"the path leaves the base's support, {describe(flow.base.support)}; pass path=Linear(), which "
            f"stays between its ends."
        )
    return _to_data(flow, z, context, batch_size)


def reconstruct(flow: Flow, x: Tensor, context: Tensor | None = None, *, batch_size: int = 256) -> Tensor:
    """``x`` to latent and back: what is left of it shows how well the flow inverts, in its own dtype.

    The difference is round-off, times what the layers stretch it by, and the tolerance of numeric inverses.
    In float32 a deep flow loses digits at every layer, the more the further ``x`` lies from its training
    data; in float64 little is left of that. Behind an encoding that rounds, the answer is exactly ``x`` until
    round-off reaches the next value, and what lies outside the support comes back inside it.

    Args:
        flow: any; switched to evaluation mode for the call.
        x: ``(*batch, *event)``.
        context: ``(*batch, *context_shape)``.
        batch_size: points that go through the flow at a time.

    Example:
        >>> import diffeo
        >>> flow, x = diffeo.presets.NSF(features=2).build().double(), torch.randn(100, 2).double()
        >>> bool((reconstruct(flow, x) - x).abs().max() < 1e-9)
        True
    """
    return _to_data(flow, _to_latent(flow, x, context, batch_size), context, batch_size)


def attribute_vector(
    flow: Flow,
    x_with: Tensor,
    x_without: Tensor,
    context_with: Tensor | None = None,
    context_without: Tensor | None = None,
    *,
    batch_size: int = 256,
) -> Tensor:
    """The direction of an attribute: mean latent of data that have it minus mean latent of data that do not.

    Args:
        flow: any; switched to evaluation mode for the call.
        x_with: data that have it, ``(*batch, *event)``, one or more.
        x_without: data that do not; the numbers of the two may differ.
        context_with: the contexts of ``x_with``, where the flow takes one.
        context_without: those of ``x_without``.
        batch_size: points that go through the flow at a time.

    Shape:
        Answer: the flow's ``latent_shape``, for ``shift``.

    Raises:
        DataError: when a set is empty.

    References: Kingma and Dhariwal 2018, "Glow", section 6, figure 6.

    Example:
        >>> import diffeo
        >>> flow = diffeo.presets.NSF(features=2).build()
        >>> smiling, serious = torch.randn(50, 2), torch.randn(80, 2)
        >>> attribute_vector(flow, smiling, serious).shape
        torch.Size([2])
    """

    def add_up(x: Tensor, context: Tensor | None) -> Tensor:
        return flow.to_latent(x, context).sum(0, keepdim=True)

    means: list[Tensor] = []
    for x, context, which in ((x_with, context_with, "x_with"), (x_without, context_without, "x_without")):
        _, rows, given = _flat(flow, x, context, flow.event_shape, which)
        if not len(rows):
            raise DataError(f"{which} holds no data, so it has no mean latent; give it at least one point.")
        sums = in_parts(flow, add_up, rows, given, batch_size=batch_size)
        means.append((sums.double().sum(0) / len(rows)).to(sums.dtype))
    return means[0] - means[1]


def shift(
    flow: Flow,
    x: Tensor,
    vector: Tensor,
    amount: float = 1.0,
    context: Tensor | None = None,
    *,
    batch_size: int = 256,
) -> Tensor:
    """``x`` with more of an attribute, or less: its latent moved by ``amount`` times ``vector``.

    Args:
        flow: any; switched to evaluation mode for the call.
        x: ``(*batch, *event)``.
        vector: of the flow's ``latent_shape``, as ``attribute_vector`` gives.
        amount: 1 is the whole way between the two sets' means; negative takes the attribute away.
        context: ``(*batch, *context_shape)``.
        batch_size: points that go through the flow at a time.

    Raises:
        ShapeError: when the vector is not of the flow's latent shape.

    Example:
        >>> import diffeo
        >>> flow = diffeo.presets.NSF(features=2).build()  # untrained: a permutation
        >>> shift(flow, torch.zeros(2), torch.ones(2), 0.5)
        tensor([0.5000, 0.5000])
    """
    if vector.shape != flow.latent_shape:
        raise ShapeError(
            f"vector has shape {tuple(vector.shape)}, but this flow's latents are {tuple(flow.latent_shape)};"
            f" pass what attribute_vector gives for this flow."
        )
    return _to_data(flow, _to_latent(flow, x, context, batch_size) + amount * vector, context, batch_size)


def tempered(flow: Flow, temperature: float) -> Flow:
    """The flow over a normal base whose standard deviation is ``temperature`` times as large: ``z = T eps``.

    Below 1, samples are cleaner and less varied. This is the T of Glow's figures: 0.7 draws latents of
    standard deviation 0.7. (``bases.Tempered``, whose temperature is a power of the density, is given its
    square.) The answer is an exact flow, whose density integrates to one; it is not ``p(x)^(1/T^2)``
    renormalized, unless the log-determinant is constant.

    Args:
        flow: over a ``DiagonalNormal``: ``Normal``, ``LearnedNormal``, ``ContextNormal``, ``Tempered``.
            Bijection, base and encodings are shared, not copied: what trains or moves one does so to both.
            The answer has no preset, so that ``save`` refuses it: save ``flow``, and temper what ``load``
            gives.
        temperature: T, positive, from 1e-6 to 1e6; 1 changes nothing.

    Raises:
        ConfigError: for another base, or a temperature out of range. At 0 there is no density; the point that
            samples tend to is ``flow.to_data`` of the base's mean.

    References: Kingma and Dhariwal 2018, "Glow", section 6 and figure 8.

    Example:
        >>> import diffeo
        >>> flow = diffeo.presets.NSF(features=2).build()  # untrained: a standard normal
        >>> x = tempered(flow, 0.7).sample(10_000, generator=torch.Generator().manual_seed(0))
        >>> round(x.std().item(), 2)
        0.7
    """
    if not isinstance(flow.base, DiagonalNormal):
        raise ConfigError(
            f"only a normal base can be tempered exactly, and this flow's is {type(flow.base).__name__}; "
            f"build the flow over a Normal, LearnedNormal or ContextNormal."
        )
    if not 1e-6 <= temperature <= 1e6:
        raise ConfigError(
            f"temperature must be from 1e-6 to 1e6, got {temperature}"
            + ("; there is no density at 0, only a point: flow.to_data(zeros)." if temperature == 0 else ".")
        )
    base = Tempered(flow.base, temperature**2)
    answer = Flow(flow.bijection, base, flow.encoding, flow.context_encoding)
    # Without recursion: the parts are the flow's own, in the modes that it has them in.
    answer.training, base.training = flow.training, flow.base.training
    return answer


# -- evaluation, in parts -------------------------------------------------------------------------


def _to_latent(flow: Flow, x: Tensor, context: Tensor | None, batch_size: int) -> Tensor:
    batch, rows, given = _flat(flow, x, context, flow.event_shape, "x")
    return in_parts(flow, flow.to_latent, rows, given, batch_size=batch_size).reshape(
        *batch, *flow.latent_shape
    )


def _to_data(flow: Flow, z: Tensor, context: Tensor | None, batch_size: int) -> Tensor:
    batch, rows, given = _flat(flow, z, context, flow.latent_shape, "z")
    return in_parts(flow, flow.to_data, rows, given, batch_size=batch_size).reshape(*batch, *flow.event_shape)


def _flat(
    flow: Flow, points: Tensor, context: Tensor | None, event_shape: torch.Size, what: str
) -> tuple[torch.Size, Tensor, Tensor | None]:
    """The batch of points and contexts, and both broadcast to it as rows, one after the other."""
    points, context = broadcast_batch(points, context, event_shape, flow.context_shape, what)
    batch = batch_shape(points, event_shape, what)
    rows = points.reshape(batch.numel(), *event_shape)
    if context is None or flow.context_shape is None:
        return batch, rows, None
    return batch, rows, context.reshape(batch.numel(), *flow.context_shape)


def _same_batch(z0: Tensor, z1: Tensor) -> tuple[Tensor, Tensor]:
    """Both expanded to one batch; events are already equal."""
    try:
        shape = torch.broadcast_shapes(z0.shape, z1.shape)
    except RuntimeError:
        raise ShapeError(
            f"x0 and x1 have latents of shapes {tuple(z0.shape)} and {tuple(z1.shape)}, whose batch axes do "
            f"not broadcast; give them equal batches, or one of them a single point."
        ) from None
    return z0.expand(shape), z1.expand(shape)
