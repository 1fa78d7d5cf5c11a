"""Parameters of another width than a family takes are refused, whichever way, by kernels and without."""

from __future__ import annotations

import re

import pytest
import torch

from diffeo.errors import ShapeError
from diffeo.functional.domains import bounds
from tests.cases import CASES


@pytest.mark.parametrize("way", ["forward", "inverse"])
@pytest.mark.parametrize("name", CASES["elementwise"])
def test_parameters_of_a_wrong_width_are_refused(name: str, way: str) -> None:
    family = CASES["elementwise"][name]()
    low, high = bounds(family.domain) if family.features is None else (0.0, 0.0)
    x = torch.full((4, family.features or 1), 0.5 * (max(low, -1.0) + min(high, 1.0)))
    wanted = family.num_params
    for width in (0, wanted - 1, wanted + 1, 2 * wanted + 1):
        if width != wanted:
            found = re.escape(str((*x.shape, width)))
            with pytest.raises(ShapeError, match=rf"takes {wanted} parameters.*{found}"):
                getattr(family, way)(x, torch.zeros(*x.shape, width))
    with pytest.raises(ShapeError, match=r"\(\)"):
        getattr(family, way)(x, torch.zeros(()))
    assert getattr(family, way)(x, torch.zeros(*x.shape, wanted))[0].shape == x.shape
