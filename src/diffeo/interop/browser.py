"""``browser_json``: a flow's layers as plain numbers, for programs that are not PyTorch.

The page that plays evaluates the flow itself, not a table of positions: layers as numbers, and some 400
lines of JavaScript that are held to Python's values at 1e-9. So it shows log-densities exactly, goes both
ways and takes the reader's own model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffeo.bases import Normal
from diffeo.bijections import (
    LU,
    ActNorm,
    Autoregressive,
    Chain,
    Coupling,
    Permute,
    Pointwise,
    Reverse,
    Standardize,
)
from diffeo.bijections.linear import MAX_LOG_DIAGONAL
from diffeo.elementwise import Additive, Affine, LocationScale, RationalQuadratic
from diffeo.elementwise.base import Elementwise
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.functional.affine import soft_clip
from diffeo.functional.exact import untouched
from diffeo.functional.stages import Stacked

LAYERS_FORMAT = "diffeo layers 1"
"""What ``browser_json`` writes under ``format``."""

_Spec = dict[str, Any]


@torch.no_grad()
def browser_json(flow: Flow) -> str:
    """The flow's layers, from data to latent, and every number in them, as JSON.

    For looking at a flow of one or two columns in the browser (the documentation's page "Play" reads this),
    or for evaluating one where there is no PyTorch. Layers are reduced to what an evaluation needs: nets are
    dense layers with their masks applied, log-scales are clipped already. Every number is written in full, so
    that the file evaluated in float64 is ``flow.double()``. It is not read back here: that is ``save``.

    Limits: vectors, no context, no encoding, a standard normal base; ``Chain``, ``Standardize``, ``ActNorm``,
    ``LU``, ``Permute``, ``Reverse``, ``Pointwise``, ``Coupling`` and ``Autoregressive``, with ``Additive``,
    ``Affine``, ``RationalQuadratic`` or a ``LocationScale`` of one of these, and nets of rectified units. So
    are the presets ``NICE``, ``RealNVP``, ``CouplingNSF``, ``MAF`` and ``NSF``.

    Args:
        flow: trained or not; dropout is left out, as in evaluation.

    Raises:
        ConfigError: for a flow with other parts; it names the part.

    Example:
        >>> import diffeo, json
        >>> from diffeo.interop import browser_json
        >>> spec = json.loads(browser_json(diffeo.presets.NSF(features=2, layers=2, hidden=8).build()))
        >>> [layer["kind"] for layer in spec["layers"]]
        ['normalize', 'autoregressive', 'lu', 'permute', 'autoregressive']
    """
    if flow.encoding is not None:
        raise ConfigError("browser_json takes flows without an encoding; pass flow.without_encoding().")
    if flow.context_shape is not None:
        raise ConfigError("browser_json takes flows without a context; this one has a density for each.")
    if len(flow.event_shape) != 1:
        raise ConfigError(
            f"browser_json takes flows of vectors; this one's events are {tuple(flow.event_shape)}."
        )
    if type(flow.base) is not Normal:
        raise ConfigError(f"browser_json takes flows with the base Normal, not {type(flow.base).__name__}.")
    for name, part in flow.named_modules():
        if not untouched(part):
            raise ConfigError(
                f"browser_json writes what layers hold, but {name} has hooks or a forward of its own; make "
                "them permanent (torch.nn.utils.prune.remove, for one) or take them off."
            )
    layers = [_layer(part) for part in _parts(flow.bijection)]
    spec = {"format": LAYERS_FORMAT, "features": flow.event_shape[0], "layers": layers}
    try:
        return json.dumps(spec, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise ConfigError("browser_json: some of the flow's weights are not finite.") from None


def _parts(bijection: nn.Module) -> list[nn.Module]:
    """The layers, chains within chains opened."""
    if isinstance(bijection, Chain):
        return [layer for part in bijection for layer in _parts(part)]
    return [bijection]


def _layer(part: nn.Module) -> _Spec:
    describe = _KINDS.get(type(part))
    if describe is None:
        known = ", ".join(kind.__name__ for kind in _KINDS)
        raise ConfigError(f"browser_json does not know {type(part).__name__}; it knows Chain, {known}.")
    return describe(part)


def _normalize(part: Standardize | ActNorm) -> _Spec:
    return {"kind": "normalize", "loc": _numbers(part.loc), "log_scale": _numbers(part.log_scale)}


def _lu(part: LU) -> _Spec:
    weight, log_diagonal = part.weight.double(), soft_clip(part.log_diagonal.double(), MAX_LOG_DIAGONAL)
    lower = weight.tril(-1) + torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    upper = weight.triu(1) + torch.diag(log_diagonal.exp())
    bias = lower.new_zeros(len(lower)) if part.bias is None else part.bias
    return {"kind": "lu", "lower": _numbers(lower), "upper": _numbers(upper), "bias": _numbers(bias)}


def _permute(part: Permute | Reverse) -> _Spec:
    return {"kind": "permute", "order": part.columns.tolist()}


def _pointwise(part: Pointwise) -> _Spec:
    return {"kind": "pointwise", "family": _family(part.family), "params": _numbers(part.params)}


def _coupling(part: Coupling) -> _Spec:
    columns = {"passing": part.passing.tolist(), "changing": part.changing.tolist()}
    return {"kind": "coupling", **columns, "family": _family(part.family), "net": _net(part.net)}


def _autoregressive(part: Autoregressive) -> _Spec:
    family, net = _family(part.family), _net(part.net)
    return {"kind": "autoregressive", "order": part.chosen, "family": family, "net": net}


_KINDS: dict[type[nn.Module], Callable[[Any], _Spec]] = {
    Standardize: _normalize,
    ActNorm: _normalize,
    LU: _lu,
    Permute: _permute,
    Reverse: _permute,
    Pointwise: _pointwise,
    Coupling: _coupling,
    Autoregressive: _autoregressive,
}


def _family(family: Elementwise) -> _Spec:
    if type(family) is Additive:
        return {"kind": "additive"}
    if type(family) is Affine:
        scalar = family.scalar
        assert scalar is not None
        return {"kind": "affine", "bound": scalar.high}
    if type(family) is LocationScale:
        return {"kind": "location_scale", "family": _family(family.family), "affine": _family(family.affine)}
    if type(family) is RationalQuadratic:
        return {"kind": "rational_quadratic", "bins": family.bins, "bound": family.bound}
    raise ConfigError(
        f"browser_json does not know the family {type(family).__name__}; "
        "it knows Additive, Affine, RationalQuadratic and a LocationScale of these."
    )


def _net(net: object) -> list[_Spec]:
    """Each layer: ``weight @ act(input) + bias``, plus the output of layer ``add``.

    ``relu`` is act. The first layer has the net's ``reach``, unless there is no bound.
    """
    stack = net.stack(None) if isinstance(net, Stacked) else None
    if stack is None:
        raise ConfigError(f"browser_json takes nets of dense layers and rectified units; this is {net}.")
    layers = []
    for dense in stack:
        weight = dense.weight
        if dense.limits is not None:
            seen = torch.arange(weight.shape[1], device=weight.device) < dense.limits[:, None]
            weight = torch.where(seen, weight, 0.0)
        bias = weight.new_zeros(len(weight)) if dense.bias is None else dense.bias
        layer = {"weight": _numbers(weight), "bias": _numbers(bias), "relu": dense.relu, "add": dense.add}
        layers.append(layer)
    reach = stack[0].reach
    if reach is not None and reach.isfinite():
        layers[0]["reach"] = float(reach)
    return layers


def _numbers(values: Tensor) -> list[Any]:
    return values.double().tolist()
