"""Probes of numbers: splines under stress, inverses far out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from peers.features import NO, YES, Seen, absent


def round_trips(forward: Callable, inverse: Callable, box: float) -> Seen:
    """``forward(x, w, h, d)`` to (y, log_slope), for logits of ±10; B is half the box."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 2, (200, 1, 23), generator=g) * 20.0 - 10.0
    x = torch.linspace(-0.9997 * box, 0.9997 * box, 101).expand(200, 101).contiguous()
    params = logits.expand(200, 101, 23).contiguous().split([8, 8, 7], -1)
    y, log_slope = forward(x, *params)
    try:
        back = inverse(y, *params)
    except (AssertionError, RuntimeError, ValueError) as error:
        return NO, f"the inverse raises {type(error).__name__}"
    error, bad = (back - x).abs(), int((~back.isfinite()).sum())
    bound = 64 * torch.finfo(torch.float32).eps * box * (1 + (-log_slope.double()).exp())
    beyond = int((~(error <= bound)).sum())
    worst = float(error[back.isfinite()].max())
    seen = f"{bad} of {x.numel():,} not finite, {beyond} beyond the bound, largest error {worst:.0e}"
    return (YES if not beyond else NO), seen


def stress(library: str) -> Seen:
    if library == "diffeo":
        from diffeo.elementwise import RationalQuadratic

        family = RationalQuadratic(bins=8, bound=3.0)
        return round_trips(
            lambda x, *p: family.forward(x, torch.cat(p, -1)),
            lambda y, *p: family.inverse(y, torch.cat(p, -1))[0],
            3.0,
        )
    if library == "zuko":
        from zuko.transforms import MonotonicRQSTransform as Spline

        return round_trips(
            lambda x, *p: Spline(*p, bound=3.0).call_and_ladj(x),
            lambda y, *p: Spline(*p, bound=3.0).inv(y),
            3.0,
        )
    if library in ("nflows", "normflows"):
        if library == "nflows":
            from nflows.transforms.splines.rational_quadratic import (
                unconstrained_rational_quadratic_spline as spline,
            )
        else:
            from normflows.utils.splines import unconstrained_rational_quadratic_spline as spline
        return round_trips(
            lambda x, *p: spline(x, *p, tail_bound=3.0),
            lambda y, *p: spline(y, *p, inverse=True, tail_bound=3.0)[0],
            3.0,
        )
    if library == "Pyro":
        from pyro.distributions.transforms.spline import _monotonic_rational_spline as spline

        def shares(w: Tensor, h: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return w.softmax(-1), h.softmax(-1), nn.functional.softplus(d)  # as its layers do

        return round_trips(
            lambda x, *p: spline(x, *shares(*p), bound=3.0),
            lambda y, *p: spline(y, *shares(*p), inverse=True, bound=3.0)[0],
            3.0,
        )
    return absent(library, "spline|rational")


def far(library: str) -> Seen:
    x = torch.tensor([[40.0], [-40.0]])
    if library == "diffeo":
        from diffeo.elementwise import DeepSigmoid

        family = DeepSigmoid()
        params = torch.randn(2, 1, family.num_params)
        return _error(family.inverse(family.forward(x, params)[0], params)[0], x)
    if library == "zuko":
        import zuko

        layer = zuko.flows.NAF(1, transforms=1).transform.transforms[0]()
        return _error(layer.inv(layer(x)), x)
    if library == "Pyro":
        from pyro.distributions.transforms import neural_autoregressive

        try:
            neural_autoregressive(2).inv(torch.randn(3, 2))
        except NotImplementedError:
            return NO, "`NeuralAutoregressive` has no inverse: NotImplementedError"
        raise AssertionError("Pyro's neural autoregressive layer has an inverse")
    return absent(library, "monotonic|neural_?auto|naf$|umnn")


def _error(back: Tensor, x: Tensor) -> Seen:
    error = float(((back - x) / x).abs().max())
    return (YES if error < 1e-3 else NO), f"inverse of f(40): {float(back.detach().max()):.4g}"
