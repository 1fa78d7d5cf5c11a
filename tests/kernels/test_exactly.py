"""A layer that is not exactly what the kernels replace is run by PyTorch."""

from __future__ import annotations

import copy
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, weight_norm

from diffeo.bijections import LU, ActNorm, Autoregressive, Chain, Coupling, Inverse, Reverse
from diffeo.elementwise import Affine, RationalQuadratic
from diffeo.flow import Flow
from diffeo.functional import native
from diffeo.nets import MADE, MLP, SiLU, SmoothMLP
from diffeo.nets.masked import MaskedLinear
from diffeo.presets import FFJORD, MAF, NSF, CouplingNSF, RealNVP, ResidualFlow
from tests.cases import stirred

pytestmark = pytest.mark.skipif(native.native is None, reason="built without kernels")
small = {"layers": 2, "hidden": (8, 8)}
spline = {"layers": 2, "hidden": 8, "blocks": 1, "bins": 4}
PRESETS = {
    "RealNVP": lambda: RealNVP(3, **small),
    "RealNVP, context": lambda: RealNVP(3, 2, **small),
    "CouplingNSF": lambda: CouplingNSF(3, **spline),
    "CouplingNSF, context": lambda: CouplingNSF(3, 2, **spline),
    "MAF": lambda: MAF(3, **small),
    "MAF, context": lambda: MAF(3, 2, **small),
    "NSF": lambda: NSF(3, **spline),
    "NSF, context": lambda: NSF(3, 2, **spline),
    "FFJORD": lambda: FFJORD(3, hidden=8, layers=2),
    "ResidualFlow": lambda: ResidualFlow(3, **small),
}


@contextmanager
def plain() -> Iterator[None]:
    """Without kernels."""
    kernels, native.native = native.native, None
    try:
        yield
    finally:
        native.native = kernels


class Bent(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 1.5 * weight


class Wrapped(nn.Module):
    """A layer and a low rank beside it."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, 1)
        nn.init.constant_(self.down.weight, 0.1)

    @property
    def weight(self) -> Tensor:
        return self.layer.weight

    @property
    def bias(self) -> Tensor:
        return self.layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + 0.3 * self.down(x).tanh()


class Louder(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 1.5 * super().forward(input)


class LouderMasked(MaskedLinear):
    def forward(self, input: Tensor) -> Tensor:
        return 1.5 * super().forward(input)


def louder_(layer: nn.Linear) -> None:
    layer.__class__ = LouderMasked if isinstance(layer, MaskedLinear) else Louder


def own_forward_(layer: nn.Linear) -> None:
    forward = layer.forward
    layer.forward = types.MethodType(lambda _, x: 1.5 * forward(x), layer)  # type: ignore[method-assign]


def prune_(layer: nn.Linear) -> None:
    prune.l1_unstructured(layer, "weight", 0.5)


def weight_norm_(layer: nn.Linear) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weight_norm(layer)
    with torch.no_grad():
        layer.weight_g.mul_(1.5)  # type: ignore[operator]


CHANGES: dict[str, Callable[[nn.Linear], Any]] = {
    "forward hook": lambda layer: layer.register_forward_hook(lambda _, inputs, out: 1.5 * out),
    "forward pre-hook": lambda layer: layer.register_forward_pre_hook(lambda _, inputs: (1.5 * inputs[0],)),
    "pruned": prune_,
    "weight norm": weight_norm_,
    "parametrized": lambda layer: parametrize.register_parametrization(layer, "weight", Bent()),
    "another class": louder_,
    "a forward of its own": own_forward_,
}


def given(flow: Flow) -> tuple[Tensor, ...]:
    x = torch.randn(4, 3)
    return (x,) if flow.context_shape is None else (x, torch.randn(4, 2))


def changed_layers(flow: Flow) -> list[nn.Linear]:
    """A hidden layer of each net, one that x goes through."""
    nets = [m for m in flow.modules() if hasattr(m, "in_features") or hasattr(m, "params")]
    nets = [n for n in nets if not isinstance(n, nn.Linear)]
    found = []
    for net in nets:
        linears = [m for m in net.modules() if isinstance(m, nn.Linear)]
        found.append(linears[1])
    assert found
    return found


def assert_as_plain(flow: Flow) -> None:
    """Values, gradients and samples are PyTorch's; the inverse is the inverse."""
    inputs = given(flow)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            found = flow(*inputs)
            with plain():
                expected = flow(*inputs)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    parameters = [p for p in flow.parameters() if p.requires_grad]
    grads = torch.autograd.grad(found.sum(), parameters, allow_unused=True)
    wanted = torch.autograd.grad(expected.sum(), parameters, allow_unused=True)
    for g, w in zip(grads, wanted, strict=True):
        assert (g is None) == (w is None)
        if g is not None:
            torch.testing.assert_close(g, w, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        z = flow.to_latent(*inputs)
        torch.testing.assert_close(flow.to_data(z, *inputs[1:]), inputs[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", PRESETS)
def test_changed_layers_are_run_by_pytorch(name: str, change: str) -> None:
    flow = stirred(PRESETS[name]().build())
    inputs = given(flow)
    with torch.no_grad():
        before = flow(*inputs)  # a description is kept from here
    for layer in changed_layers(flow):
        CHANGES[change](layer)
    with torch.no_grad():
        assert not torch.allclose(flow(*inputs), before, rtol=0, atol=1e-7)
    assert_as_plain(flow)


@pytest.mark.parametrize("name", ["RealNVP", "CouplingNSF", "FFJORD"])
def test_a_wrapper_with_the_weight_of_what_it_wraps_has_its_say(name: str) -> None:
    flow = stirred(PRESETS[name]().build())
    flow(*given(flow))
    for layer in changed_layers(flow):
        for parent in list(flow.modules()):
            for key, child in list(parent.named_children()):
                if child is layer:
                    setattr(parent, key, Wrapped(layer))
    assert_as_plain(flow)


def test_hooks_of_layers_are_called_once_and_no_longer_once_removed() -> None:
    flow = stirred(RealNVP(3, **small).build())
    x, seen = torch.randn(4, 3), []
    flow(x)
    parts = [m for m in flow.modules() if isinstance(m, Coupling)]
    handles = [p.register_forward_hook(lambda part, *_: seen.append(part)) for p in parts]
    flow(x)
    assert seen == parts
    for handle in handles:
        handle.remove()
    flow(x)
    assert seen == parts
    assert flow.bijection._known.snapshot.same()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "part",
    [
        lambda: LU(3),
        lambda: Reverse(3),
        lambda: ActNorm((3,)),
        lambda: Inverse(LU(3)),
        lambda: Chain([LU(3), Reverse(3)]),
        lambda: Coupling([True, False, False], MLP(1, 4), Affine()),
        lambda: Autoregressive(MADE(3, 2), Affine()),
    ],
)
def test_a_part_of_a_chain_with_a_hook_is_called(part: Callable[[], Any]) -> None:
    hooked = part()
    chain = Chain([LU(3), hooked, Reverse(3)])
    x = torch.randn(4, 3)
    value = chain(x)[0]
    hooked.register_forward_hook(lambda _, inputs, out: (out[0] + 1, out[1]))
    torch.testing.assert_close(chain(x)[0], value + 1)
    torch.testing.assert_close(copy.deepcopy(chain)(x)[0], value + 1)


class Halved(RationalQuadratic):
    """Slopes at the knots that are half as far from 1."""

    def _slopes(self, raw: Tensor) -> Tensor:
        return super()._slopes(0.5 + 0.5 * raw)


class Slower(SiLU):
    def forward(self, h: Tensor) -> Tensor:
        return 0.5 * super().forward(h)

    def slope(self, h: Tensor, value: Tensor) -> Tensor:
        return 0.5 * super().slope(h, 2 * value)


def test_subclasses_of_what_the_kernels_know_have_their_say() -> None:
    x, params = torch.randn(5), torch.randn(5, 11)
    assert not torch.equal(Halved(4).forward(x, params)[0], RationalQuadratic(4).forward(x, params)[0])
    for make in (lambda: Halved(4).forward(x, params)[0], lambda: SmoothMLP(5, 5, activation=Slower)(x)):
        torch.manual_seed(0)
        found = make()
        with plain():
            torch.manual_seed(0)
            torch.testing.assert_close(found, make())


def test_the_steps_of_a_masked_net_with_hooks_are_its_own() -> None:
    layer = stirred(MAF(3, **small).build())
    for m in layer.modules():
        if isinstance(m, MaskedLinear):
            m.register_forward_hook(lambda _, inputs, out: out * 1.5)
    x = torch.randn(4, 3)
    with plain(), torch.no_grad():
        torch.testing.assert_close(layer.to_data(layer.to_latent(x)), x, rtol=1e-4, atol=1e-4)
