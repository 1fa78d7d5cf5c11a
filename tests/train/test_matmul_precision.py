"""bfloat16 products: only the nets', only in training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import diffeo
from diffeo.functional.matmul_precision import matmul_dtype, run_net
from diffeo.presets import NSF, CouplingNSF
from diffeo.train import OptimizerSettings


class Spy:
    """Notes in which precision the product it is asked for is made."""

    def __call__(self, x: Tensor, context: Tensor | None) -> Tensor:
        self.made = x @ x.T
        return self.made


def test_products_are_made_in_the_dtype_and_given_in_the_points():
    spy, x = Spy(), torch.randn(3, 3)
    with matmul_dtype(torch.bfloat16):
        given = run_net(spy, x, None)
    assert (spy.made.dtype, given.dtype) == (torch.bfloat16, torch.float32)
    assert run_net(spy, x, None).dtype == spy.made.dtype == torch.float32


@pytest.mark.parametrize("kind", [NSF, CouplingNSF])
def test_training_comes_to_the_same_density(kind: Any):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, generator=generator)
    x[:, 1] += x[:, 0].square()
    reports = []
    for dtype in (None, torch.bfloat16):
        torch.manual_seed(0)
        flow = kind(3, layers=2, hidden=32, blocks=1).build()
        report = diffeo.fit(
            flow, x, max_steps=300, optimizer=OptimizerSettings(matmul_dtype=dtype, patience=1.0)
        )
        assert {p.dtype for p in flow.parameters()} == {torch.float32}
        assert flow.log_prob(x[:5]).dtype == torch.float32
        reports.append(report.valid)
    assert reports[0] != reports[1], "the products were the same"
    assert abs(reports[0] - reports[1]) < 0.01
