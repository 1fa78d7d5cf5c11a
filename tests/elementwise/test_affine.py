"""The bounded scale."""

from __future__ import annotations

import math

import pytest
import torch

from diffeo.elementwise.affine import Affine
from diffeo.errors import ConfigError


def test_scale_never_leaves_its_bound():
    params = torch.tensor([[0.0, 1e30], [0.0, -1e30]])
    y, log_slope = Affine(max_scale=50.0).forward(torch.ones(2), params)
    assert torch.allclose(y, torch.tensor([50.0, 0.02]))
    assert torch.allclose(log_slope, torch.tensor([1.0, -1.0]) * math.log(50.0))


@pytest.mark.parametrize("max_scale", [1.0, 0.5, math.inf, math.nan])
def test_bad_bound_is_refused(max_scale: float):
    with pytest.raises(ConfigError, match="max_scale"):
        Affine(max_scale=max_scale)
