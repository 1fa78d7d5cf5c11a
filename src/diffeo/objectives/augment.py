"""Objectives on images changed at random: more data from the same."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from diffeo.flow import Flow
from diffeo.objectives.base import Batch, Objective
from diffeo.objectives.likelihood import Likelihood


@dataclass(frozen=True)
class Flipped:
    """Another objective, on images each of which is mirrored left to right with probability 1/2 in training.

    For pictures whose mirror images are as likely as they are: faces and landscapes, not digits. A context
    that is an image is mirrored with its image. In evaluation nothing is mirrored, so that scores are
    those of the images themselves.

    Args:
        objective: what is minimized.

    Shape:
        images ``(rows, channels, height, width)``.

    Example:
        >>> import diffeo
        >>> flow = diffeo.presets.Glow((1, 4, 4), levels=1, layers=1, hidden=4).build()
        >>> batch = Batch(torch.zeros(3, 1, 4, 4), None, None, torch.arange(3))
        >>> bool(Flipped()(flow, batch) == Likelihood()(flow, batch))  # a blank image is its own mirror image
        True
    """

    objective: Objective = field(default_factory=Likelihood)

    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        if flow.training:
            mirrored = torch.rand(len(batch.x), device="cpu") < 0.5
            context = batch.context
            if context is not None and context.dim() == 4:
                context = _mirror(context, mirrored)
            batch = replace(batch, x=_mirror(batch.x, mirrored), context=context)
        return self.objective(flow, batch)


def _mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)
