"""Classifier-free guidance: samples that are more typical of their class.

Guidance replaces nets, so a guided flow still is an exact one, with a density of its own.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from diffeo.bijections import AutoregressiveTokens
from diffeo.contracts import CausalNet, Stepper, Windowed, Windows
from diffeo.elementwise import Affine
from diffeo.encodings.context import OneHotContext
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.functional.affine import soft_clip

__all__ = ["Guided", "guided"]


class Guided(nn.Module, Windowed):
    """A causal net led away from its own answer without a context, for layers of ``Affine``.

    Formula: the generative map of an element is ``x = mu + exp(alpha) y``; both become
    ``(1 + w_t) mu(c) - w_t mu(0)``, likewise alpha, where 0 is the context of zeros: what ``Classes`` makes
    of an unknown class. As any causal net it gives an exact flow. Cost: two passes of the net.

    Args:
        net: with a context, trained without it now and then (``drop``).
        weight: w, from 0 up; 0 changes nothing.
        family: of the layer: it says how parameters are bounded.
        rising: let w_t rise linearly along the tokens, from 0 at the first to w at the last, where there
            is more to be led by.

    Raises:
        ConfigError: for a net without context, or a negative weight.

    References: Zhai et al. 2025, "Normalizing flows are capable generative models" (TarFlow), section 3.4; Ho
    and Salimans 2022, "Classifier-free diffusion guidance".
    """

    def __init__(self, net: CausalNet, weight: float, family: Affine | None = None, *, rising: bool = False):
        super().__init__()
        if net.context_shape is None:
            raise ConfigError("guidance leads toward a context, and this net takes none; build it with one.")
        if not 0 <= weight < math.inf:
            raise ConfigError(f"the weight of guidance must be finite and at least 0, not {weight}.")
        self.net, self.weight, self.rising = net, weight, rising
        self.length, self.width, self.params = net.length, net.width, net.params
        self.context_shape: torch.Size | None = net.context_shape
        self.bound = math.log((family or Affine()).max_scale)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        assert context is not None
        given, free = self.net(x, context), self.net(x, torch.zeros_like(context))
        return self.combine(given, free, self.weights(x, 0, self.length))

    def stepper(self, context: Tensor | None, batch_shape: torch.Size) -> Stepper:
        """The two nets' steps, combined."""
        assert context is not None
        given = self.net.stepper(context, batch_shape)
        free = self.net.stepper(torch.zeros_like(context), batch_shape)
        tokens = iter(range(self.length))

        def step(previous: Tensor | None) -> Tensor:
            params, t = given(previous), next(tokens)
            return self.combine(params, free(previous), self.weights(params, t, t + 1)[0])

        return step

    def windows(self, context: Tensor | None, batch_shape: torch.Size) -> Windows:
        """The two nets' windows, combined."""
        return _Windows(self, context, batch_shape)

    def weights(self, like: Tensor, start: int, stop: int) -> Tensor:
        """The weights of these tokens, ``(n, 1)``."""
        t = torch.arange(start, stop, dtype=like.dtype, device=like.device).unsqueeze(-1)
        return self.weight * t / max(1, self.length - 1) if self.rising else torch.full_like(t, self.weight)

    def combine(self, given: Tensor, free: Tensor, weight: Tensor) -> Tensor:
        """Parameters ``(..., 2)`` of ``Affine`` from those with the context and those without."""
        pairs = zip(self._generative(given), self._generative(free), strict=True)
        mu, alpha = (c + weight * (c - u) for c, u in pairs)
        # at the bound itself the raw parameter would be infinite
        alpha = alpha.clamp(-0.999 * self.bound, 0.999 * self.bound)
        return torch.stack([-mu * (-alpha).exp(), -alpha / (1 - alpha.abs() / self.bound)], -1)

    def _generative(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """``mu`` and ``alpha`` of ``x = mu + exp(alpha) y``, from ``y = exp(s) x + shift``."""
        alpha = -soft_clip(params[..., 1], self.bound)
        return -params[..., 0] * alpha.exp(), alpha


class _Windows:
    def __init__(self, guided: Guided, context: Tensor | None, batch_shape: torch.Size):
        net = guided.net
        if not isinstance(net, Windowed):
            raise ConfigError(f"{type(net).__name__} does not take tokens in windows; use another sampler.")
        assert context is not None
        self.guided, self.known = guided, 0
        self.both = [net.windows(c, batch_shape) for c in (context, torch.zeros_like(context))]

    def propose(self, guess: Tensor) -> Tensor:
        given, free = (net.propose(guess) for net in self.both)
        weights = self.guided.weights(given, self.known, self.known + guess.shape[-2])
        return self.guided.combine(given, free, weights)

    def accept(self, vectors: Tensor) -> None:
        self.known += vectors.shape[-2]
        for net in self.both:
            net.accept(vectors)


def guided(flow: Flow, weight: float, *, rising: bool = False) -> Flow:
    """The flow with every ``AutoregressiveTokens`` layer of ``Affine`` guided toward its context.

    Samples are more typical of their class, and less varied. The answer is an exact flow of its own: its
    ``log_prob`` is the density of what it samples. It holds copies and has no preset, so that ``save``
    refuses it: save ``flow``, and guide what ``load`` gives.

    Args:
        flow: conditional on ``Classes``, trained with ``drop`` above 0.
        weight: w, from 0 up; 1 to 3 as a rule.
        rising: let it rise along the tokens; see ``Guided``.

    Raises:
        ConfigError: for a flow without such layers, or that never saw an unknown class.

    Example:
        >>> import torch, diffeo
        >>> preset = diffeo.presets.TarFlow((1, 8, 8), diffeo.contexts.Classes(10), hidden=8, drop=0.1)
        >>> flow = guided(preset.build().eval(), 1.5)
        >>> flow.sample(context=torch.tensor([7, 7])).shape
        torch.Size([2, 1, 8, 8])
    """
    answer = copy.deepcopy(flow)
    answer.preset = None
    tokens = (m for m in answer.modules() if isinstance(m, AutoregressiveTokens))
    layers = [m for m in tokens if isinstance(m.family, Affine)]
    if not layers:
        raise ConfigError("only AutoregressiveTokens layers of Affine are guided, and this flow has none.")
    encoding = flow.context_encoding
    if not isinstance(encoding, OneHotContext) or not encoding.drop:
        raise ConfigError(
            "this flow never saw an unknown class, which guidance compares with; train one with "
            "context=Classes(n) and drop=0.1."
        )
    for layer in layers:
        assert isinstance(layer.family, Affine)
        layer.net = Guided(layer.net, weight, layer.family, rising=rising)
    return answer
