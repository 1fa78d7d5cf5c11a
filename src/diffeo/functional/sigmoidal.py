"""The logit of a mixture of sigmoids, in logarithms on both sides, with its derivative in closed form."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffeo.functional import native
from diffeo.functional.scalar import second_order

Pair = tuple[Tensor, Tensor]


def logit_mixture(x: Tensor, logits: Tensor, centers: Tensor, log_rates: Tensor) -> Pair:
    """``y = logit(sum_j w_j sigmoid(u_j))`` and ``log dy/dx``, with ``u_j = exp(log_rate_j) (x - center_j)``.

    With ``S = sum_j w_j sigmoid(u_j)`` and ``C = sum_j w_j sigmoid(-u_j) = 1 - S``, both by their logarithms:
    ``y = log S - log C`` and ``dy/dx = D / (S C)``, ``D = sum_j w_j a_j sigmoid(u_j) sigmoid(-u_j)``. Far
    out D and the smaller of S and C vanish alike, so their ratio is taken term by term, and the tails are
    linear at any distance.

    Args:
        x: ``(*,)``.
        logits, centers, log_rates: ``(K, *)`` each; the weights w are the softmax of the logits.

    Shape: both results as x.
    """
    if native.usable() and all(type(t) in native.PLAIN for t in (x, logits, centers, log_rates)):
        if torch.is_grad_enabled():
            return _LogitMixture.apply(x, logits, centers, log_rates)
        y, log_slope, _, _ = _values(x, logits, centers, log_rates)
        return y, log_slope
    return logit_mixture_plain(x, logits, centers, log_rates)


def logit_mixture_plain(x: Tensor, logits: Tensor, centers: Tensor, log_rates: Tensor) -> Pair:
    """``logit_mixture`` as one would write it down: for second derivatives, transforms, and tests."""
    u = log_rates.exp() * (x - centers)
    rises, falls = F.logsigmoid(u), F.logsigmoid(-u)
    log_s, log_c = (logits + rises).logsumexp(0), (logits + falls).logsumexp(0)
    left = log_s <= log_c
    log_less, log_more = torch.where(left, log_s, log_c), torch.where(left, log_c, log_s)
    parts = logits + torch.where(left, rises, falls)
    parts = parts - parts.detach().amax(0)
    log_ratio = (parts + torch.where(left, falls, rises) + log_rates).logsumexp(0) - parts.logsumexp(0)
    y = torch.where(left, log_less - log_more, log_more - log_less)
    return y, log_ratio - log_more + logits.logsumexp(0)


def _values(
    x: Tensor, logits: Tensor, centers: Tensor, log_rates: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Value, log-slope, and what the derivative is made of: u and each unit's share of S, C, 1 and D."""
    u = log_rates.exp().mul_(x - centers)
    under = u.clamp_max(0)
    over = u - under
    shares = u.new_empty(4, *u.shape)
    s, c, one, d = shares
    torch.add(logits, under, out=s)  # log-sigmoids, up to a factor
    torch.sub(logits, over, out=c)
    one.copy_(logits)
    top = shares[:3].amax(1, keepdim=True)
    shares[:3] -= top
    left = (top[0] <= top[1]).to(u)
    torch.lerp(c + under, s - over, left, out=d).add_(log_rates)
    top_d = d.amax(0, keepdim=True)
    d -= top_d
    shares.exp_()
    factor = over.sub_(under).sigmoid_()  # that factor: sigmoid(|u|) = max(sigmoid(u), sigmoid(-u))
    shares[:2] *= factor
    d *= factor.square_()
    total = shares.sum(1, keepdim=True)
    logs = total.log()
    log_s, log_c, log_1 = (logs[:3] + top).squeeze(1).unbind()
    # of D over the lesser of S and C, and of the other
    log_ratio = (logs[3] + top_d - torch.lerp(logs[1], logs[0], left)).squeeze(0)
    log_more = torch.lerp(log_s, log_c, left.squeeze(0))
    return log_s - log_c, log_ratio - log_more + log_1, u, shares.div_(total)


class _LogitMixture(torch.autograd.Function):
    """The derivative of what is above: ``d log S = sum_j P_j d log(w_j sigmoid(u_j))``, and so on, where the
    P are each unit's share; ``d log sigmoid(u) = sigmoid(-u) du``.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, logits: Tensor, centers: Tensor, log_rates: Tensor) -> Pair:
        y, log_slope, u, shares = _values(x, logits, centers, log_rates)
        ctx.save_for_backward(x, logits, centers, log_rates, u, shares)
        return y, log_slope

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, u, shares = ctx.saved_tensors
        if torch.is_grad_enabled() or not native.addressable(*grad_outputs):
            with torch.enable_grad():
                views = [t.view_as(t) for t in inputs]
                needed = [t for t, need in zip(views, ctx.needs_input_grad, strict=True) if need]
                grads = iter(second_order(logit_mixture_plain(*views), needed, grad_outputs))
            return tuple(next(grads) if need else None for need in ctx.needs_input_grad)
        g_y, g_slope = grad_outputs
        s, c, one, d = shares
        rises = torch.sigmoid(u)
        falls = 1 - rises
        s = s * (g_y - g_slope)  # what log S, log C, log D and log 1 weigh, share by share
        c = c * (-g_y - g_slope)
        d = d * g_slope
        g_logits = (s + c).add_(d).add_(one * g_slope)
        g_u = s.add_(d).mul_(falls).sub_(c.add_(d).mul_(rises))
        g_rates = (g_u * u).add_(d)
        g_centers = g_u.mul_(inputs[3].exp()).neg_()
        return -g_centers.sum(0), g_logits, g_centers, g_rates
