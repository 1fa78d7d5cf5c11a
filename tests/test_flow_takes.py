"""What shapes and dtypes ``Flow`` takes at its door."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from diffeo.errors import DataError, ShapeError
from diffeo.presets import NSF, PRESETS


@pytest.mark.parametrize(
    ("asked", "shape"),
    [
        (np.int64(5), (5,)),
        (np.array(5), (5,)),
        (torch.tensor(5), (5,)),
        ((np.int32(5), 2), (5, 2)),
        (np.array([5, 2]), (5, 2)),
        (torch.Size((5,)), (5,)),
    ],
)
def test_a_sample_shape_is_any_whole_numbers(asked: Any, shape: tuple[int, ...]) -> None:
    flow = NSF(2, layers=1, hidden=8, blocks=1).build()
    assert flow.sample(asked).shape == (*shape, 2)
    assert flow.sample_and_log_prob(asked)[1].shape == shape
    assert flow.distribution().sample(asked).shape == (*shape, 2)


@pytest.mark.parametrize("asked", [5.0, "5", None, (2.5,)])
def test_another_sample_shape_is_refused(asked: Any) -> None:
    with pytest.raises(ShapeError, match="a whole number or several"):
        NSF(2, layers=1, hidden=8, blocks=1).build().sample(asked)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["NSF", "NAF", "MAF"])
def test_half_precision_is_refused_in_one_line(name: str, dtype: torch.dtype) -> None:
    flow = PRESETS[name](2).build().eval()
    x = torch.zeros(3, 2, dtype=dtype)
    with pytest.raises(DataError, match=r"pass x.to\(torch.float32\)"):
        flow.log_prob(x)
    for call in (flow.to(dtype).log_prob, lambda x: flow.sample(3)):
        with pytest.raises(DataError, match=r"call flow.float\(\)"):
            call(x)
