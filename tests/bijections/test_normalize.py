"""ActNorm and Standardize."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffeo.bijections.normalize import ActNorm, Standardize
from diffeo.errors import DataError, ShapeError

kinds = pytest.mark.parametrize("kind", [ActNorm, Standardize])


def rows() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(500, 3) * torch.tensor([1e-3, 1.0, 1e4]) + torch.tensor([1.0, -5.0, 1e6])


@kinds
def test_output_has_mean_zero_and_variance_one(kind):
    layer, x = kind((3,)), rows()
    assert torch.equal(layer(x)[0], x)  # the identity until it is set
    layer.initialize(x)
    z, log_det = layer(x)
    assert torch.allclose(z.mean(0), torch.zeros(3), atol=2e-3)  # columns are known to eps |mean|
    assert torch.allclose(z.std(0, correction=0), torch.ones(3), atol=1e-4)
    assert torch.allclose(
        log_det, -x.double().std(0, correction=0).log().sum().float().expand(500), atol=1e-4
    )


@kinds
@pytest.mark.parametrize("event_shape", [(), (3,), (2, 2)], ids=str)
def test_log_det_and_round_trip(kind, event_shape: tuple[int, ...]):
    torch.manual_seed(0)
    layer = kind(event_shape).double()
    x = 3 * torch.randn(20, *event_shape, dtype=torch.float64) + 7
    layer.initialize(x)
    y, log_det = layer(x)
    back, inverse_log_det = layer.inverse(y)
    assert log_det.shape == (20,)
    assert torch.allclose(back, x)
    assert torch.equal(inverse_log_det, -log_det)
    jacobian = torch.func.jacrev(lambda t: layer(t.reshape(event_shape))[0].flatten())(x[0].flatten())
    assert torch.allclose(torch.linalg.slogdet(jacobian)[1], log_det[0])


@kinds
@pytest.mark.parametrize("value", [0.0, 1e6, 0.1])
def test_a_constant_column_keeps_scale_one(kind, value: float):
    """nflows: ActNorm gives NaN on a constant column."""
    layer, x = kind((2,)), torch.randn(100, 2)
    x[:, 1] = value
    layer.initialize(x)
    z, log_det = layer(x)
    assert layer.log_scale[1] == 0
    assert torch.allclose(z[:, 1], torch.zeros(100), atol=1e-6)
    assert log_det.isfinite().all()


@kinds
def test_a_single_row_is_enough(kind):
    layer = kind((2,))
    layer.initialize(torch.tensor([3.0, 4.0]))
    assert layer(torch.tensor([3.0, 4.0]))[0].tolist() == [0.0, 0.0]


@kinds
def test_columns_too_small_for_float32_stay_finite(kind):
    layer = kind((1,))
    x = torch.tensor([[0.0], [1e-40]])
    layer.initialize(x)
    assert layer(x)[0].isfinite().all()


@kinds
def test_is_set_once(kind):
    layer, x = kind((3,)), rows()
    layer.initialize(x)
    before = layer(x)[0]
    layer.initialize(2 * x + 1)
    assert torch.equal(layer(x)[0], before)


@kinds
def test_loading_never_initializes_again(kind):
    """torchflows: ActNorm re-initializes after loading."""
    layer, x = kind((3,)), rows()
    layer.initialize(x)
    loaded = kind((3,))
    loaded.load_state_dict(layer.state_dict())
    loaded.initialize(2 * x + 1)
    assert torch.equal(loaded(x)[0], layer(x)[0])


@kinds
def test_the_callers_data_are_left_alone(kind):
    """normflows: ``Shift`` writes into the caller's data."""
    layer, x = kind((3,)), rows()
    copy = x.clone()
    layer.initialize(x)
    layer.inverse(layer(x)[0])
    assert torch.equal(x, copy)


def test_only_actnorm_learns():
    assert [name for name, _ in ActNorm((2,)).named_parameters()] == ["loc", "log_scale"]
    assert not list(Standardize((2,)).parameters())
    layer = ActNorm((3,))
    layer.initialize(rows())
    assert all(parameter.requires_grad for parameter in layer.parameters())


@kinds
def test_unusable_data_are_refused(kind):
    with pytest.raises(DataError, match="no points"):
        kind((2,)).initialize(torch.zeros(0, 2))
    with pytest.raises(DataError, match="NaN"):
        kind((2,)).initialize(torch.tensor([[0.0, torch.nan]]))
    with pytest.raises(ShapeError, match="must end in"):
        kind((2,)).initialize(torch.zeros(5, 3))
