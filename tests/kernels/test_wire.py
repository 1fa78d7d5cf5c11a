"""The table of what goes to the kernels stands in Python and in C++: the two are compared, both ways."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, get_type_hints

import pytest
import torch
from torch import Tensor

from diffeo.bijections import Autoregressive, Bijection, Contractive, Coupling
from diffeo.elementwise import Affine
from diffeo.functional import fields, native, wire
from diffeo.functional.programs import Program
from diffeo.nets import MADE, MLP, LipschitzMLP, SmoothMLP, Tanh

pytestmark = pytest.mark.skipif(native.native is None, reason="built without kernels")


def compiled(part: str) -> dict[str, Any]:
    """A part of the table as C++ has it; ``"a, b"`` is what stands for two names."""
    assert native.native is not None
    return native.native.wire()[part]


def own(base: type) -> list[Any]:
    """The classes of the table in Python."""
    found = [v for v in vars(wire).values() if isinstance(v, type) and issubclass(v, base)]
    return [v for v in found if v.__module__ == wire.__name__]


def test_codes():
    codes = {kind.__name__: ", ".join(code.name.lower() for code in kind) for kind in own(IntEnum)}
    assert codes == compiled("codes")
    for kind in own(IntEnum):
        assert [code.value for code in kind] == list(range(len(kind)))


def test_limits():
    assert {k: v for k, v in vars(wire).items() if k.isupper() and isinstance(v, int)} == compiled("limits")


def test_records():
    def parts(record: Any) -> tuple[str, str, str]:
        (begin, end), names = wire.split(record), record._fields
        return ", ".join(names[:begin]), ", ".join(names[begin:end]), ", ".join(names[end:])

    assert {record.__name__: parts(record) for record in own(tuple)} == compiled("records")


@pytest.mark.parametrize("record", own(tuple))
def test_records_hold_whole_numbers_then_reals_then_tensors(record: Any):
    parts = {Tensor: 2, Tensor | None: 2, float: 1}
    order = [parts.get(kind, 0) for kind in get_type_hints(record).values()]
    assert order == sorted(order)
    assert wire.split(record) == (order.count(0), order.count(0) + order.count(1))


def test_records_are_filled_again():
    a, b, c = (torch.randn(1) for _ in range(3))
    records = [wire.LU(2.0, a, b, None), wire.Program(1), wire.Permute(c)]
    _, reals, tensors = wire.packed(records)
    assert (reals, tensors) == ([2.0], [a, b, None, c])
    assert wire.refilled(records, iter([c, a, b, None])) == [
        wire.LU(2.0, c, a, b), wire.Program(1), wire.Permute(None),  # type: ignore[arg-type]
    ]  # fmt: skip


DEEP = (4,) * wire.MAX_LAYERS


@pytest.mark.parametrize(
    "layer",
    [
        Coupling([True, False], MLP(1, 2, DEEP), Affine()),
        Autoregressive(MADE(2, 2, DEEP), Affine()),
        Contractive(LipschitzMLP(2, DEEP, lipschitz=0.5)),
        Contractive(LipschitzMLP(2, (4,), lipschitz=0.99999)),
    ],
    ids=["coupling", "autoregressive", "contractive", "many iterations"],
)
def test_what_is_beyond_the_limits_is_plain_pytorch(layer: Bijection):
    x = torch.randn(3, 2)
    y, log_det = layer(x)
    expected, expected_log_det = layer._forward(x, None)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(log_det, expected_log_det)


@pytest.mark.parametrize("steps", [wire.MAX_STEPS, wire.MAX_STEPS + 1])
def test_more_steps_than_the_kernels_take_are_none(steps: int):
    stack = SmoothMLP(1, 1, (1,), activation=Tanh).smooth_stack()
    assert stack is not None
    stage = fields.transport(stack, torch.zeros(3 * steps + 1, 1), 1.0)
    done = Program([stage]).run(torch.zeros(1, 1))
    assert (done is not None) == (steps <= wire.MAX_STEPS)
