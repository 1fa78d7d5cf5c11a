"""Whoever watches operations sees all of them: graphs, modes and hooks of every module."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from diffeo.bijections import Continuous
from diffeo.flow import Flow
from diffeo.functional import native
from diffeo.functional.solvers import Adaptive
from diffeo.presets import NSF
from tests.cases import CASES, stirred

SLOW = ("FFJORD, context", "FlowMatching, classes")  # as those without, in large graphs
APART = "Mixed"  # has no kernels, and a loop over the columns of an encoding
pytestmark = pytest.mark.skipif(native.native is None, reason="built without kernels")


def jit_trace(flow: Flow, given: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Python looks at shapes, and that the tracer is old
        return torch.jit.trace(flow, given, check_trace=False)  # type: ignore[no-any-return]


def fx_trace(flow: Flow, given: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    return make_fx(lambda *inputs: flow(*inputs))(*given)


def points(flow: Flow, rows: int) -> tuple[Tensor, ...]:
    context = None
    if flow.context_shape is not None:
        context = torch.randn(rows, *flow.context_shape)
        context = context if flow.context_shape else (context > 0).long()
    x = flow.sample((rows,) if context is None else (), context)
    return (x,) if context is None else (x, context)


@pytest.mark.parametrize("recorded", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize("name", [name for name in CASES["presets"] if name not in (*SLOW, APART)])
def test_a_graph_of_a_flow_holds_for_other_points(name: str, recorded: bool) -> None:
    flow = stirred(CASES["presets"][name]().build())
    for layer in flow.modules():
        if isinstance(layer, Continuous):  # a slow field and few steps make a small graph
            layer.evaluation = Adaptive(tolerance=1e-4, first=1)
            with torch.no_grad():
                for p in layer.net.layers[-1].parameters():  # type: ignore[attr-defined]
                    p.mul_(0.05)
    first, others = points(flow, 3), points(flow, 3)
    with torch.set_grad_enabled(recorded):
        expected = flow(*others)
        for trace in (jit_trace, fx_trace):
            torch.testing.assert_close(trace(flow, first)(*others), expected, rtol=1e-3, atol=1e-3)


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func.__name__)
        return func(*args, **(kwargs or {}))


class CountingFunctions(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [Counting, CountingFunctions])
def test_a_mode_sees_the_nets_products(mode: Any) -> None:
    flow = stirred(NSF(2, layers=2, hidden=8, blocks=1, bins=4).build())
    x = torch.randn(3, 2)
    flow(x)  # the description is kept from here
    with mode() as counting:
        flow(x)
    assert counting.seen & {"addmm.default", "mm.default", "linear"}


def test_a_hook_of_all_modules_sees_every_layer() -> None:
    flow = stirred(NSF(2, layers=2, hidden=8, blocks=1, bins=4).build())
    x, seen = torch.randn(3, 2), []
    flow(x)
    handle = register_module_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    try:
        flow(x)
    finally:
        handle.remove()
    assert seen.count("MaskedLinear") == 2 * 4


def test_the_default_device_watches_nothing() -> None:
    with torch.device("cpu"):
        assert native.usable()


def test_a_tensor_that_only_says_it_is_negated_is_taken_as_it_means() -> None:
    flow = stirred(NSF(1, layers=2, hidden=8, blocks=1, bins=4).build())
    negated = torch.complex(torch.zeros(1, 1), torch.ones(1, 1)).conj().imag
    assert negated.is_neg()
    torch.testing.assert_close(flow(negated), flow(-torch.ones(1, 1)))
