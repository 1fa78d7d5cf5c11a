"""Planar, radial and Sylvester flows: the papers' formulas, exact log-dets, inverses that score any data."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffeo
from diffeo import presets
from diffeo.bijections import Planar, Radial, Sylvester
from diffeo.bijections.base import Bijection
from diffeo.errors import ConfigError, ShapeError
from diffeo.functional.gains import MARGIN
from diffeo.nets import MLP
from diffeo.testing.precision import check_round_trips

KINDS: dict[str, Any] = {
    "Planar": lambda: Planar(4),
    "PlanarOfOne": lambda: Planar(1),
    "PlanarOfContext": lambda: Planar(3, MLP(0, Planar.num_params(3), (8,), context_features=2)),
    "Radial": lambda: Radial(4),
    "RadialOfOne": lambda: Radial(1),
    "RadialOfContext": lambda: Radial(3, MLP(0, Radial.num_params(3), (8,), context_features=2)),
    "Sylvester": lambda: Sylvester(4, 3, 2),
    "SylvesterOfOne": lambda: Sylvester(1, 1),
    "SylvesterOfAll": lambda: Sylvester(3, 3),
    "SylvesterOfContext": lambda: Sylvester(
        3, 2, 4, MLP(0, Sylvester.num_params(3, 2, 4), (8,), context_features=2)
    ),
}
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
lines = pytest.mark.parametrize("make", [KINDS[k] for k in KINDS if k.endswith("OfOne")])


def trained(make: Any, scale: float = 1.0, dtype: torch.dtype = torch.float64, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    layer = make().to(dtype)
    for p in layer.parameters():
        nn.init.normal_(p, std=scale)
    return layer


def given(layer: Bijection, rows: int, scale: float = 2.0) -> tuple[Tensor, Tensor | None]:
    g = torch.Generator().manual_seed(1)
    dtype = next(layer.parameters()).dtype
    x = scale * torch.randn(rows, *layer.event_shape, generator=g, dtype=dtype)
    shape = layer.context_shape
    return x, None if shape is None else torch.randn(rows, *shape, generator=g, dtype=dtype)


def jacobians(apply: Any, x: Tensor, context: Tensor | None) -> Tensor:
    """One for each row, ``(rows, D, D)``; rows do not touch each other."""
    return torch.autograd.functional.jacobian(lambda t: apply(t, context)[0].sum(0), x).movedim(1, 0)


# -- formulas ---------------------------------------------------------------------------------------


def test_planar_is_its_formula():
    layer = trained(KINDS["Planar"])
    w, free, b = layer.numbers.own.detach().split([4, 4, 1])
    s, c = w @ free, 1 - MARGIN
    u = free + ((s + math.hypot(s, c) - c) - s) * w / (w @ w)
    x, _ = given(layer, 20)
    y, log_det = layer(x)
    assert torch.allclose(y, x + u * torch.tanh(x @ w + b)[:, None])
    assert torch.allclose(log_det, torch.log(1 + (u @ w) * (1 - torch.tanh(x @ w + b) ** 2)))


def test_radial_is_its_formula():
    layer = trained(KINDS["Radial"])
    center, log_radius, raw = layer.numbers.own.detach().split([4, 1, 1])
    alpha = math.exp(log_radius / (1 + abs(log_radius) / math.log(1000)))
    beta = alpha * (raw + math.hypot(raw, 1 - MARGIN) - (1 - MARGIN))
    x, _ = given(layer, 20)
    r = (x - center).norm(dim=1, keepdim=True)
    assert torch.allclose(layer(x)[0], x + beta * (x - center) / (alpha + r))


def test_sylvester_is_its_formula():
    layer = trained(KINDS["Sylvester"])
    vectors, raw, log_scale, above_a, above_b, bias = layer.numbers.own.detach().split([8, 3, 3, 3, 3, 3])
    q = torch.eye(4, dtype=torch.float64)
    for v in vectors.reshape(2, 4):
        q = q @ (torch.eye(4, dtype=torch.float64) - 2 * torch.outer(v, v) / (v @ v))
    q = q[:, :3]
    assert torch.allclose(q.T @ q, torch.eye(3, dtype=torch.float64))
    inner = torch.diag(torch.exp(log_scale / (1 + log_scale.abs() / math.log(1000))))
    gain = raw + torch.hypot(raw, torch.tensor(1 - MARGIN)) - (1 - MARGIN)
    outer = torch.diag(gain / inner.diag())
    for matrix, values in ((outer, above_a), (inner, above_b)):
        matrix[0, 1], matrix[0, 2], matrix[1, 2] = values
    x, _ = given(layer, 20)
    y, log_det = layer(x)
    t = x @ q @ inner.T + bias
    assert torch.allclose(y, x + torch.tanh(t) @ outer.T @ q.T)
    dense = torch.eye(4) + q @ outer @ torch.diag_embed(1 - torch.tanh(t) ** 2) @ inner @ q.T
    assert torch.allclose(log_det, torch.linalg.slogdet(dense)[1])


def test_sylvester_of_one_direction_is_a_planar_layer():
    """``y = x + q a tanh(b q.x + bias)`` with w = b q, u = a q."""
    layer = trained(lambda: Sylvester(3, 1))
    q, outer, inner, bias, _ = layer._parts(torch.zeros(3, dtype=torch.float64), None)
    w, u = inner[0, 0] * q[:, 0], outer[0, 0] * q[:, 0]
    planar = trained(lambda: Planar(3))
    s = u @ w  # the free u that gives this one: (1 + 2 c s + s^2) / (2 (c + s)) undone
    c = 1 - MARGIN
    free = ((s + c) ** 2 - c**2) / (2 * (s + c)) * w / (w @ w)
    with torch.no_grad():
        planar.numbers.own.copy_(torch.cat([w, free, bias]))
    x, _ = given(layer, 10)
    for one, other in ((layer, planar), (layer.inverse, planar.inverse)):
        for found, wanted in zip(one(x), other(x), strict=True):
            assert torch.allclose(found, wanted)


# -- log-dets, inverses, gradients ------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_log_dets_and_round_trips_far_from_the_start(make: Any, scale: float):
    layer = trained(make, scale)
    x, context = given(layer, 40)
    y, log_det = layer(x, context)
    back, log_det_back = layer.inverse(y, context)
    jacobian = jacobians(layer, x, context)
    assert torch.allclose(torch.linalg.slogdet(jacobian)[1], log_det, atol=1e-7)
    assert (torch.linalg.slogdet(jacobian)[0] == 1).all()
    stretch = torch.linalg.inv(jacobian).norm(dim=(1, 2))[:, None]
    assert ((back - x).abs() <= 1e-13 * (1 + x.abs() + stretch * (1 + y.norm(dim=1, keepdim=True)))).all()
    assert torch.allclose(log_det_back, -log_det, atol=1e-6)


@kinds
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_any_point_has_an_inverse(make: Any, scale: float):
    """Points of a density's tails, too, which the map itself need not come near."""
    layer = trained(make, scale)
    y, context = given(layer, 40, scale=30.0)
    x, log_det = layer.inverse(y, context)
    again, forward = layer(x, context)
    stretch = jacobians(layer, x, context).norm(dim=(1, 2))[:, None]
    assert ((again - y).abs() <= 1e-13 * (1 + y.abs() + stretch * (1 + x.norm(dim=1, keepdim=True)))).all()
    assert torch.allclose(forward, -log_det, atol=1e-6)


@kinds
def test_gradients_of_the_inverse_are_those_of_finite_differences(make: Any):
    layer = trained(make, 0.5)
    y, context = given(layer, 3)
    names, values = zip(*layer.named_parameters(), strict=True)

    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
            return self.layer.inverse(y, context)

    whole = Backwards()

    def apply(y: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        own = {f"layer.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(whole, own, (y,))

    inputs = [t.detach().requires_grad_() for t in (y, *values)]
    assert torch.autograd.gradcheck(apply, inputs, atol=1e-6)


@kinds
def test_a_million_in_float32(make: Any):
    """Finite, and round trips within 64 units of round-off of what conditioning allows."""
    for seed in range(5):
        layer = trained(make, 1.0, torch.float32, seed)
        x, context = given(layer, 30)
        x = (x.sign() * 1e6).requires_grad_()
        y, log_det = layer(x, context)
        back, log_det_back = layer.inverse(y, context)
        (y.sum() + log_det.sum() + back.sum() + log_det_back.sum()).backward()
        for t in (y, log_det, back, log_det_back, x.grad, *(p.grad for p in layer.parameters())):
            assert t is not None
            assert t.isfinite().all()
        double = layer.double()
        exact = jacobians(double, x.detach().double(), None if context is None else context.double())
        stretch = torch.linalg.inv(exact).norm(dim=(1, 2))[:, None]
        error = (back - x).abs()
        size = x.norm(dim=1, keepdim=True) + stretch * y.norm(dim=1, keepdim=True)
        assert (error <= 64 * torch.finfo(torch.float32).eps * size).all()


@lines
@pytest.mark.parametrize("scale", [0.0, 0.3, 3.0])
def test_scalar_round_trips_within_the_contract(make: Any, scale: float):
    far = torch.tensor([0.0, 1e-30, 1e-6, 1e-3, 0.1, 1.0, 30.0, 1e3, 1e6])
    points = torch.cat([-far, torch.linspace(-5, 5, 201), far])[:, None]
    for seed in range(10):
        layer = trained(make, scale, torch.float32, seed)
        check_round_trips(layer, layer.inverse, points, points, 1.0)


def test_radial_at_its_center_and_very_far():
    layer = trained(KINDS["Radial"], dtype=torch.float32)
    center = layer.numbers.own.detach()[:4]
    far = torch.tensor([1e30, -1e30, 3e37, 0.0])
    x = torch.stack([center, center + 1e-30, far]).requires_grad_()
    for apply in (layer, layer.inverse):
        value, log_det = apply(x)
        assert torch.allclose(value, x, rtol=1e-6, atol=1e-6)
        grads = torch.autograd.grad(log_det.sum() + (value / 1e30).sum(), [x, *layer.parameters()])
        for t in (value, log_det, *grads):
            assert t.isfinite().all()
    slope = layer._parts(center, None)[2]
    assert torch.allclose(layer(center)[1], 4 * slope.log().squeeze())


@kinds
def test_steepest_and_flattest_parameters(make: Any):
    """However far parameters go, u.w and its like stay above -1."""
    for scale in (30.0, 1000.0):
        layer = trained(make, scale)
        x, context = given(layer, 50)
        y, log_det = layer(x, context)
        assert y.isfinite().all()
        assert log_det.isfinite().all()
        back, _ = layer.inverse(y, context)
        assert back.isfinite().all()


# -- start and arguments ----------------------------------------------------------------------------


@kinds
def test_starts_as_the_identity_and_leaves_it(make: Any):
    torch.manual_seed(0)
    layer = make()
    x, context = given(layer, 200)
    x = x.exp()  # nothing symmetric
    y, log_det = layer(x, context)
    assert torch.allclose(y, x)
    assert log_det.abs().max() < 1e-6
    loss = (0.5 * y.square().sum(-1) - log_det).mean()
    grads = torch.autograd.grad(loss, list(layer.parameters()), allow_unused=True)
    assert max(float(g.abs().max()) for g in grads if g is not None) > 1e-2


@kinds
def test_layers_start_in_different_directions(make: Any):
    torch.manual_seed(0)
    start = [
        layer.numbers.own if layer.numbers.net is None else layer.numbers.start for layer in (make(), make())
    ]
    assert not torch.equal(*start)


def test_arguments_that_cannot_be():
    with pytest.raises(ConfigError, match="features"):
        Planar(0)
    with pytest.raises(ConfigError, match="features"):
        Radial(-1)
    for rank in (0, 4):
        with pytest.raises(ConfigError, match="rank must be from 1 to the 3"):
            Sylvester(3, rank)
    with pytest.raises(ConfigError, match="reflections"):
        Sylvester(3, 2, 0)
    for net in (MLP(0, 4, context_features=1), MLP(1, 5, context_features=1), MLP(0, 5)):
        with pytest.raises(ShapeError, match="in_features=0, out_features=5"):
            Planar(2, net)


# -- what they are for ------------------------------------------------------------------------------


def curved(rows: int, seed: int) -> Tensor:
    """``(a, b + a^2 / 2)`` of normal a and b / 2: a banana, whose entropy is that of a and b."""
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rows, generator=g), 0.5 * torch.randn(rows, generator=g)
    return torch.stack([a, b + 0.5 * a.square()], -1)


@pytest.mark.parametrize(
    ("preset", "gain"),
    [
        (presets.Planar(2, layers=6), 0.3),
        (presets.Radial(2, layers=6), 0.1),
        (presets.Sylvester(2, layers=4), 0.3),
    ],
    ids=["Planar", "Radial", "Sylvester"],
)
def test_trained_it_beats_the_gaussian_and_samples_what_it_scores(preset: Any, gain: float):
    torch.manual_seed(0)
    x, fresh = curved(1000, 0), curved(4000, 1)
    flow = preset.build()
    settings = diffeo.train.OptimizerSettings(learning_rate=2e-2, ema=0.99, patience=1.0)
    diffeo.fit(flow, x, max_steps=300, optimizer=settings, validation=0)
    flow.eval()
    gaussian = torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.T))
    entropy = 0.5 * math.log(0.25) + math.log(2 * math.pi) + 1
    score = flow.log_prob(fresh).mean().item()
    assert gaussian.log_prob(fresh).mean().item() + gain < score < -entropy + 0.05
    # E_p[h / p] over samples is the integral of h, for any h: here a narrow normal amid the data.
    samples, log_prob = flow.sample_and_log_prob(20000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(flow.log_prob(samples), log_prob, atol=1e-3)
    narrow = torch.distributions.Normal(torch.tensor([0.3, 0.4]), 0.3)
    ratio = (narrow.log_prob(samples).sum(-1) - log_prob).exp()
    assert abs(ratio.mean().item() - 1) < 5 * ratio.std().item() / math.sqrt(len(ratio))
