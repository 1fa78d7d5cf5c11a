"""Learning from a teacher, a flow itself: its density, and where layers pair, its map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffeo.bases import Normal
from diffeo.bijections import ActNorm, Autoregressive, Chain, Inverse, Reverse, Standardize
from diffeo.bijections.base import Bijection
from diffeo.elementwise import Affine
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.inference.objectives.reverse_kl import reverse_kl
from diffeo.objectives.base import Batch, weighted_mean
from diffeo.objectives.likelihood import Likelihood

Segment = list[Bijection]


@dataclass(frozen=True)
class LayerByLayer:
    """Each layer of the student learns to undo the teacher's layer in its place: two maps made one.

    The inverse of an affine autoregressive layer is another one, whose net sees latents in place of data. So
    an ``IAF`` can hold the very map of a ``MAF`` of as many layers; nothing but the size of its nets is in
    the way. Layer by layer this is regression: no noise once it is solved, no composition to differentiate,
    and far fewer steps than a divergence takes.

    Each batch goes through the teacher, layer by layer. The first half of it is compared where the teacher
    takes it, which is where the student will draw, the other half where the student's own layer does, which
    is where its density looks. A row's loss grows as the logarithm of its square error, so that a few rows
    far off do not rule a step.

    Formula: ``sum_i log(1 + 1/2 |f_i(g_i(y)) - y|^2)`` a row, f_i the teacher's layer, g_i what should undo
    it, y the state behind them. In evaluation the loss is reverse KL in nats, over the batch's latents.

    Args:
        teacher: affine autoregressive layers with reversals between them, such as a ``MAF``; no encoding, and
            parameters that are frozen, or they gather gradients.

    Raises:
        ConfigError: for a teacher and a flow whose layers do not pair, each with one that can undo it.

    References: van den Oord et al. 2018, "Parallel WaveNet", for the idea of such a student; Ping, Peng and
    Chen 2019, "ClariNet", section 3.3, who compare the two step by step as well.

    Example:
        >>> import torch, diffeo
        >>> teacher = diffeo.presets.MAF(features=2, layers=2).build()
        >>> student = diffeo.presets.IAF(features=2, layers=2).build()
        >>> LayerByLayer(teacher)(student, Batch(torch.randn(8, 2), None, None, torch.arange(8))).item()
        0.0
    """

    teacher: Flow

    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        pairs = layer_pairs(self.teacher, flow)
        if pairs is None:
            raise ConfigError(
                "the student's layers cannot undo the teacher's; pair a MAF with an IAF of as many layers."
            )
        theirs, own = _encoded(self.teacher, batch.context), _encoded(flow, batch.context)
        if not flow.training:
            return weighted_mean(self._reverse_kl(flow, batch.x, theirs, own), batch.weights)
        loss = batch.x.new_zeros(len(batch.x))
        half = len(batch.x) // 2
        x = batch.x
        for forth, back in pairs:
            with torch.no_grad():
                after = _push(forth, x, theirs)
                here = after.clone()
                here[half:] = _push(back, x[half:], None if own is None else own[half:])
            again = _push(forth, _pull(back, here, own), theirs)
            loss = loss + torch.log1p(0.5 * (again - here).square().sum(-1))
            x = after.flip(-1)
        return weighted_mean(loss, batch.weights)

    def _reverse_kl(self, flow: Flow, x: Tensor, theirs: Tensor | None, own: Tensor | None) -> Tensor:
        z = self.teacher.bijection.push(x, theirs)
        x, log_det = flow.bijection.inverse(z, own)
        z_again, back = self.teacher.bijection(x, theirs)
        log_p = self.teacher.base.log_prob(z_again, theirs) + back
        return flow.base.log_prob(z, own) - log_det - log_p


def layer_pairs(teacher: Flow, student: Flow) -> list[tuple[Segment, Segment]] | None:
    """The teacher's layers, each with the student's that can undo it; None where they do not pair."""
    one, other = _segments(teacher.bijection), _segments(student.bijection)
    if len(one) != len(other) or not one or teacher.event_shape != student.event_shape:
        return None
    if not (isinstance(teacher.base, Normal) and isinstance(student.base, Normal)):
        return None  # the map alone would not make their densities equal
    if not all(_is_affine(part) for segment in one for part in segment):
        return None
    for segment in other:
        if not any(isinstance(part, Inverse) for part in segment):
            return None
        if not all(_is_affine(part.bijection if isinstance(part, Inverse) else part) for part in segment):
            return None
    return list(zip(one, other, strict=True))


def _segments(bijection: Bijection) -> list[Segment]:
    """The parts of a chain between its reversals; none of anything else."""
    found: list[Segment] = [[]]
    if not isinstance(bijection, Chain):
        return []
    for part in bijection.parts:
        assert isinstance(part, Bijection)
        if isinstance(part, Reverse):
            found.append([])
        else:
            found[-1].append(part)
    return found


def _is_affine(part: Bijection) -> bool:
    """Whether each column goes through an affine map whose numbers depend on earlier columns alone."""
    if isinstance(part, Autoregressive):
        return part.natural and isinstance(part.family, Affine)
    return isinstance(part, Standardize | ActNorm)


def _push(parts: Segment, x: Tensor, context: Tensor | None) -> Tensor:
    for part in parts:
        x = part.push(x, context)
    return x


def _pull(parts: Segment, y: Tensor, context: Tensor | None) -> Tensor:
    for part in reversed(parts):
        y = part.pull(y, context)
    return y


def _encoded(flow: Flow, context: Tensor | None) -> Tensor | None:
    encoding = flow.context_encoding
    return context if context is None or encoding is None else encoding(context)


@dataclass(frozen=True)
class BothKL:
    """``KL(q || p) + KL(p || q)`` of any student and any teacher: what distills where maps do not compare.

    The teacher scores the student's draws, with the path gradient of ``ReverseKL``, and the student is fitted
    to the teacher's, which are the rows of the batch, by maximum likelihood.

    Args:
        teacher: a flow of vectors; no encoding.

    Example:
        >>> import torch, diffeo
        >>> teacher = diffeo.presets.NSF(features=2, layers=2, hidden=8).build()
        >>> student = diffeo.presets.RealNVP(features=2, layers=2, hidden=(8,)).build()
        >>> loss = BothKL(teacher)(student, Batch(torch.randn(8, 2), None, None, torch.arange(8)))
        >>> abs(round(loss.item(), 4))
        0.0
    """

    teacher: Flow

    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        with torch.no_grad():
            log_p = weighted_mean(self.teacher.log_prob(batch.x, batch.context), batch.weights)
        reverse = reverse_kl(flow, self.teacher.log_prob, batch)
        return reverse + Likelihood()(flow, batch) + log_p
