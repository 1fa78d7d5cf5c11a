"""Latent space: paths against rotations made another way; attributes and temperatures in closed form."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import diffeo
from diffeo.bases import ContextNormal, LearnedNormal, MixtureOfNormals, Normal, StudentT, Tempered, Uniform
from diffeo.bijections import Chain, Tanh, Triangular
from diffeo.bijections.base import Bijection
from diffeo.contexts import Classes
from diffeo.encodings import Column, Columns, Dequantization
from diffeo.encodings.kinds import Integer, Positive
from diffeo.errors import ConfigError, ContextError, DataError, DiffeoError, DomainError, ShapeError
from diffeo.latents import (
    Linear,
    Path,
    Slerp,
    attribute_vector,
    interpolate,
    reconstruct,
    shift,
    tempered,
)
from diffeo.nets import MLP
from diffeo.presets import MAF, NSF, Glow

TIMES = torch.linspace(0, 1, 9, dtype=torch.float64)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def stirred(module: nn.Module, size: float = 0.2) -> None:
    generator = torch.Generator().manual_seed(1)
    for value in module.parameters():
        value.data += size * torch.randn(value.shape, generator=generator)


def linear_flow(features: int = 3) -> diffeo.Flow:
    flow = diffeo.Flow(Triangular(features), Normal((features,))).double()
    stirred(flow, 0.5)
    return flow


def matrix_and_bias(flow: diffeo.Flow) -> tuple[np.ndarray, np.ndarray]:
    """``z = A x + b`` of a linear flow, read off its values."""
    eye = torch.eye(flow.event_shape.numel(), dtype=torch.float64)
    with torch.no_grad():
        bias = flow.to_latent(0 * eye[0])
        return (flow.to_latent(eye) - bias).T.numpy(), bias.numpy()


def curved(features: int = 2, **fields) -> diffeo.Flow:
    flow = NSF(features, layers=2, hidden=8, blocks=1, bins=4, **fields).build().double()
    stirred(flow)
    return flow


def counts() -> diffeo.Flow:
    """Behind an encoding that draws noise in training: two columns of counts and a positive one."""
    columns = Columns(
        [Column("a", Integer(), loc=3.0, scale=2.0), Column("b", Positive()), Column("c", Integer())]
    )
    flow = MAF(3, layers=2, hidden=(8,)).build(columns)
    stirred(flow)
    return flow


def rotated(z0: np.ndarray, z1: np.ndarray, t: float) -> np.ndarray:
    """Slerp as a rotation: in the plane of the two, from z0's direction by a part of the angle."""
    r0, r1 = np.linalg.norm(z0), np.linalg.norm(z1)
    u0 = z0 / r0
    across = z1 - (z1 @ u0) * u0
    angle = math.atan2(np.linalg.norm(across), z1 @ u0)
    turned = math.cos(t * angle) * u0 + math.sin(t * angle) * across / np.linalg.norm(across)
    return ((1 - t) * r0 + t * r1) * turned


# -- paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [2, 3, 50])
def test_slerp_is_a_rotation_at_even_speed(features: int):
    z0, z1 = torch.randn(2, 4, features, dtype=torch.float64)
    way = Slerp()(z0, 3 * z1, TIMES)
    assert way.shape == (9, 4, features)
    for (i, t), row in itertools.product(enumerate(TIMES.tolist()), range(4)):
        np.testing.assert_allclose(way[i, row], rotated(z0[row].numpy(), 3 * z1[row].numpy(), t), atol=1e-12)


@pytest.mark.parametrize("angle", [1e-6, 1e-4, 0.1, 3.0, math.pi - 1e-4, math.pi - 1e-6])
def test_slerp_keeps_the_digits_of_small_and_nearly_straight_angles(angle: float):
    z0, z1 = (torch.tensor([math.cos(a), math.sin(a)], dtype=torch.float64) for a in (0.0, angle))
    x, y = Slerp()(z0, z1, TIMES).T
    np.testing.assert_allclose(torch.atan2(y, x), angle * TIMES, rtol=1e-8)


@pytest.mark.parametrize(
    ("z0", "z1"),
    [
        ([0.0, 0.0], [3.0, 4.0]),
        ([3.0, 4.0], [0.0, 0.0]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([3.0, 4.0], [3.0, 4.0]),
        ([3.0, 4.0], [6.0, 8.0]),
        ([3.0, 4.0], [-3.0, -4.0]),
        ([3.0, 4.0], [-0.3, -0.4]),
        ([1.0, 1e-9], [1.0, 0.0]),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_one_arc_slerp_is_the_straight_line(z0: list[float], z1: list[float], dtype: torch.dtype):
    way = Slerp()(torch.tensor(z0, dtype=dtype), torch.tensor(z1, dtype=dtype), TIMES.to(dtype))
    t = TIMES.numpy()[:, None]
    np.testing.assert_allclose(
        way, (1 - t) * z0 + t * np.array(z1), atol=4e-6 if dtype.itemsize == 4 else 1e-14
    )


def test_straight_lines_are_row_by_row():
    """One row without an arc does not straighten its neighbors."""
    z0, z1 = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
    middle = Slerp()(z0, z1, torch.tensor([0.5]))[0]
    torch.testing.assert_close(middle, torch.tensor([[0.0, 0.0], [0.5**0.5, 0.5**0.5]]))


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e30, 1e38])
def test_slerp_of_any_size(size: float):
    z0, z1 = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([[-1.0, 0.5, 1.5]])
    for way in (Slerp()(size * z0, z1, TIMES.float()), Slerp()(z0, size * z1, TIMES.float())):
        assert way.isfinite().all()
    way = Slerp()(size * z0, size * z1, TIMES.float())
    torch.testing.assert_close(
        way / size, Slerp()(z0, z1, TIMES.float()), rtol=1e-2 if size < 1e-40 else 1e-5, atol=0.01
    )


@pytest.mark.parametrize("path", [Slerp(), Linear()], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_paths_end_exactly_at_their_ends(path: Path, dtype: torch.dtype):
    z0, z1 = torch.randn(2, 200, 7, dtype=dtype)
    way = path(z0, z1, TIMES.to(dtype))
    assert way.dtype == dtype
    assert torch.equal(way[0], z0)
    assert torch.equal(way[-1], z1)


def test_nan_stays_in_its_row():
    z0, z1 = torch.randn(2, 3, 4)
    z0[1, 2] = math.nan
    bad = Slerp()(z0, z1, TIMES.float())[1:-1].isnan().any(-1)
    assert bad[:, 1].all()
    assert not bad[:, [0, 2]].any()


def test_slerp_of_a_normals_draws_stays_typical_and_the_line_does_not():
    z0, z1 = torch.randn(2, 50, 3000, generator=torch.Generator().manual_seed(3))
    middle = torch.tensor([0.5])
    assert Slerp()(z0, z1, middle).std().item() == pytest.approx(1, abs=0.02)
    assert Linear()(z0, z1, middle).std().item() == pytest.approx(0.5**0.5, abs=0.02)


# -- interpolate ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_interpolation_in_a_linear_flow(dtype: torch.dtype):
    flow = linear_flow()
    a, b = matrix_and_bias(flow)
    x0, x1 = torch.randn(2, 5, 3, dtype=torch.float64)
    found = interpolate(flow.to(dtype), x0.to(dtype), x1.to(dtype), 4)
    straight = interpolate(flow, x0.to(dtype), x1.to(dtype), 4, path=Linear())
    assert found.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 1e-12
    for i, t in enumerate((0, 1 / 3, 2 / 3, 1)):
        z = np.stack([rotated(a @ p.numpy() + b, a @ q.numpy() + b, t) for p, q in zip(x0, x1, strict=True)])
        np.testing.assert_allclose(found[i], np.linalg.solve(a, (z - b).T).T, atol=tolerance)
        np.testing.assert_allclose(straight[i], (1 - t) * x0 + t * x1, atol=tolerance)


def test_ends_are_the_originals():
    flow = curved()
    x0, x1 = torch.randn(2, 20, 2, dtype=torch.float64)
    way = interpolate(flow, x0, x1, 2)
    torch.testing.assert_close(way, torch.stack([x0, x1]), rtol=1e-9, atol=1e-9)


def test_ends_behind_an_encoding_that_rounds_are_exactly_the_originals():
    flow = counts()
    x = torch.tensor([[0, 1.5, 4], [3, 0.2, -1], [7, 9.0, 2], [-5, 1.0, 0]], dtype=torch.float64)
    way = interpolate(flow, x, x.flip(0), 5)
    assert torch.equal(way[0][:, [0, 2]], x[:, [0, 2]])
    assert torch.equal(way[-1][:, [0, 2]], x.flip(0)[:, [0, 2]])
    assert torch.equal(way[..., [0, 2]], way[..., [0, 2]].round())
    assert (way[..., 1] > 0).all()
    assert torch.equal(interpolate(flow, x, x.flip(0), 5), way)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("bits", "kept"), [(8, 0b11111111), (5, 0b11111000)])
def test_ends_of_images_are_the_same_pixels(dtype: torch.dtype, bits: int, kept: int):
    """Of a multiscale flow left in training mode, where the encoding would draw fresh noise."""
    flow = Glow((1, 4, 4), levels=2, layers=1, hidden=8).build(Dequantization((1, 4, 4), bits)).to(dtype)
    stirred(flow, 0.05)
    x0, x1 = torch.randint(256, (2, 30, 1, 4, 4), dtype=torch.uint8)
    way = interpolate(flow, x0, x1, 3)
    assert way.dtype == torch.uint8
    assert torch.equal(way[0], x0 & kept)
    assert torch.equal(way[2], x1 & kept)
    assert torch.equal(reconstruct(flow, x0), x0 & kept)
    assert not torch.equal(way[1], way[0])
    assert flow.training


@pytest.mark.parametrize(
    ("batch0", "batch1", "full"),
    [((), (), ()), ((4,), (4,), (4,)), ((2, 3), (2, 3), (2, 3)), ((4,), (), (4,)), ((2, 1), (3,), (2, 3)),
     ((0,), (0,), (0,))],
    ids=str,
)  # fmt: skip
def test_batch_axes(batch0, batch1, full):
    flow = curved()
    x0, x1 = torch.randn(*batch0, 2, dtype=torch.float64), torch.randn(*batch1, 2, dtype=torch.float64)
    way = interpolate(flow, x0, x1, 3, batch_size=2)
    assert way.shape == (3, *full, 2)
    torch.testing.assert_close(way[0], x0.expand(*full, 2), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(way[2], x1.expand(*full, 2), rtol=1e-9, atol=1e-9)


def test_each_way_has_its_own_context():
    flow = curved(context=Classes(3))
    x0, x1 = torch.randn(2, 3, 2, dtype=torch.float64)
    classes = torch.tensor([2, 0, 1])
    way = interpolate(flow, x0, x1, 4, classes, batch_size=5)
    for i in range(3):
        alone = interpolate(flow, x0[i], x1[i], 4, classes[i])
        torch.testing.assert_close(way[:, i], alone, rtol=1e-9, atol=1e-9)
    other = interpolate(flow, x0, x1, 4, classes.flip(0))
    assert (other - way)[1:-1].abs().max() > 1e-3
    assert interpolate(flow, x0[0], x1[0], 4, classes).shape == (4, 3, 2)


class Flat(Bijection):
    """Images to one flat latent, last pixel first, as a multiscale flow's."""

    def __init__(self):
        super().__init__((1, 2, 3), latent_shape=(6,))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.flatten(-3).flip(-1), x.new_zeros(x.shape[:-3])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y.flip(-1).unflatten(-1, (1, 2, 3)), y.new_zeros(y.shape[:-1])


class Same(Bijection):
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, x.flatten(-3).sum(-1) * 0

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.forward(y)


@pytest.mark.parametrize("bijection", [Flat(), Same((1, 2, 3))], ids=["flat", "same"])
def test_the_arc_is_that_of_the_whole_latent(bijection: Bijection):
    flow = diffeo.Flow(bijection, Normal(bijection.latent_shape)).double()
    x0, x1 = torch.randn(2, 4, 1, 2, 3, dtype=torch.float64)
    whole = Slerp()(x0.flatten(1), x1.flatten(1), torch.linspace(0, 1, 5, dtype=torch.float64))
    torch.testing.assert_close(interpolate(flow, x0, x1, 5, batch_size=3), whole.reshape(5, 4, 1, 2, 3))
    direction = attribute_vector(flow, x0, x1)
    assert direction.shape == bijection.latent_shape
    torch.testing.assert_close(shift(flow, x1, direction), x1 + (x0 - x1).mean(0))


def test_what_interpolate_refuses():
    flow, x = curved(), torch.randn(4, 2, dtype=torch.float64)
    with pytest.raises(ConfigError, match="steps=1"):
        interpolate(flow, x, x, 1)
    with pytest.raises(ShapeError, match="do not broadcast"):
        interpolate(flow, x, x[:3], 2)
    with pytest.raises(ShapeError, match=r"\(4, 3\)"):
        interpolate(flow, x, torch.zeros(4, 3), 2)
    with pytest.raises(ContextError, match="takes no context"):
        interpolate(flow, x, x, 2, torch.zeros(3))
    with pytest.raises(ContextError, match="one context"):
        interpolate(curved(context=2), x, x, 2, (torch.zeros(2), torch.ones(2)))  # pyright: ignore
    with pytest.raises(ConfigError, match="batch_size"):
        interpolate(flow, x, x, 2, batch_size=0)


def test_a_path_that_leaves_the_support_is_refused():
    flow = diffeo.Flow(Chain([Tanh((2,))]), Uniform((2,), -1.0, 1.0)).double()
    x0, x1 = torch.tensor([[2.0, 2.0], [-2.0, 2.0]], dtype=torch.float64)
    with pytest.raises(DomainError, match=r"\(-1, 1\).*path=Linear"):
        interpolate(flow, x0, x1, 5, path=Slerp())
    torch.testing.assert_close(interpolate(flow, x0, x1, 3)[1], torch.tensor([0.0, 2.0]).double())


def test_the_path_suits_the_base():
    x0, x1 = torch.randn(2, 4, 3, dtype=torch.float64)
    for base, path in (
        (Normal((3,)), Slerp()),
        (LearnedNormal((3,)), Slerp()),
        (StudentT((3,)), Linear()),
        (MixtureOfNormals((3,), 2), Linear()),
    ):
        flow = diffeo.Flow(Triangular(3), base).double()
        assert torch.equal(interpolate(flow, x0, x1, 5), interpolate(flow, x0, x1, 5, path=path))


# -- evaluation: mode, parts, gradients -----------------------------------------------------------

CALLS: dict[str, Callable[[diffeo.Flow, Tensor, int], Tensor]] = {
    "interpolate": lambda flow, x, n: interpolate(flow, x, x.flip(0), 3, batch_size=n),
    "reconstruct": lambda flow, x, n: reconstruct(flow, x, batch_size=n),
    "attribute_vector": lambda flow, x, n: attribute_vector(flow, x, x[:2], batch_size=n),
    "shift": lambda flow, x, n: shift(flow, x, torch.ones(3), 0.5, batch_size=n),
}
X = torch.tensor([[0, 1.5, 4], [3, 0.2, -1], [7, 9.0, 2], [1, 1.0, 0], [2, 0.1, 3]], dtype=torch.float64)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_latents_are_those_of_evaluation_and_modes_are_put_back(call):
    flow = counts()
    settled = call(flow.eval(), X, 256)
    flow.train()
    flow.bijection.eval()
    before = [module.training for module in flow.modules()]
    assert len(set(before)) == 2
    assert torch.equal(call(flow, X, 256), settled)
    assert [module.training for module in flow.modules()] == before


def test_modes_are_put_back_after_an_error(monkeypatch):
    flow = counts().train()
    monkeypatch.setattr(flow.bijection, "push", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reconstruct(flow, X)
    assert all(module.training for module in flow.modules())


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_parts_of_the_batch(call, monkeypatch):
    flow, sizes = counts(), []
    push = flow.bijection.push

    def recorded(x: Tensor, context: Tensor | None) -> Tensor:
        sizes.append(len(x))
        return push(x, context)

    monkeypatch.setattr(flow.bijection, "push", recorded)
    whole = call(flow, X, 256)
    sizes.clear()
    torch.testing.assert_close(call(flow, X, 2), whole, rtol=1e-5, atol=1e-5)
    assert set(sizes) <= {1, 2}
    assert sizes[:3] == [2, 2, 1]
    assert not whole.requires_grad


def test_reconstruct():
    flow = curved(context=Classes(3))
    x, classes = torch.randn(4, 5, 2, dtype=torch.float64), torch.randint(3, (5,))
    back = reconstruct(flow, x, classes, batch_size=3)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    assert not torch.equal(back, x)  # a round trip, and not what went in
    assert reconstruct(flow.float(), x.float(), classes).dtype == torch.float32
    whole = reconstruct(counts(), X)
    assert torch.equal(whole[:, [0, 2]], X[:, [0, 2]])
    torch.testing.assert_close(whole, X, rtol=1e-5, atol=1e-5)


# -- attributes -----------------------------------------------------------------------------------


def test_an_attribute_of_a_linear_flow_is_the_difference_of_the_means():
    flow = linear_flow()
    a, _ = matrix_and_bias(flow)
    smiling, serious = torch.randn(2, 7, 3, dtype=torch.float64) + 2, torch.randn(5, 3, dtype=torch.float64)
    difference = smiling.mean((0, 1)) - serious.mean(0)
    vector = attribute_vector(flow, smiling, serious, batch_size=4)
    np.testing.assert_allclose(vector, a @ difference.numpy(), atol=1e-12)
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    for amount in (-1.5, 0.0, 1.0):
        torch.testing.assert_close(shift(flow, x, vector, amount, batch_size=3), x + amount * difference)
    torch.testing.assert_close(attribute_vector(flow, smiling[0, 0], serious[0]).numpy(),
                               a @ (smiling[0, 0] - serious[0]).numpy())  # fmt: skip


def test_attributes_at_contexts():
    flow = curved(context=Classes(3))
    x, classes = torch.randn(6, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    vector = attribute_vector(flow, x, x[:1], classes, classes[1], batch_size=4)
    expected = flow.to_latent(x, classes).mean(0) - flow.to_latent(x[0], classes[1])
    torch.testing.assert_close(vector, expected.detach())
    moved = shift(flow, x, vector, 0.5, classes)
    torch.testing.assert_close(
        flow.to_latent(moved, classes), flow.to_latent(x, classes) + 0.5 * vector, check_dtype=True
    )


def test_what_attributes_refuse():
    flow, x = linear_flow(), torch.randn(4, 3, dtype=torch.float64)
    with pytest.raises(DataError, match="x_without holds no data"):
        attribute_vector(flow, x, x[:0])
    with pytest.raises(ShapeError, match="x_with has shape"):
        attribute_vector(flow, x[:, :2], x)
    with pytest.raises(ShapeError, match=r"\(2,\).*\(3,\)"):
        shift(flow, x, torch.zeros(2))


# -- temperature ----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.5])
def test_tempered_linear_flow_is_the_normal_of_scaled_covariance(temperature: float):
    flow = linear_flow()
    a, b = matrix_and_bias(flow)
    inverse = torch.from_numpy(np.linalg.inv(a))
    normal = torch.distributions.MultivariateNormal(
        -inverse @ torch.from_numpy(b), temperature**2 * inverse @ inverse.T
    )
    x = torch.randn(10, 3, dtype=torch.float64)
    torch.testing.assert_close(tempered(flow, temperature).log_prob(x).detach(), normal.log_prob(x))


@pytest.mark.parametrize("temperature", [0.6, 1.7])
@pytest.mark.parametrize("base", ["normal", "learned", "of context"])
def test_tempered_density_integrates_to_one(temperature: float, base: str):
    bases = {
        "normal": lambda: Normal((2,)),
        "learned": lambda: LearnedNormal((2,)),
        "of context": lambda: ContextNormal((2,), MLP(2, 4, hidden=(8,))),
    }
    context = torch.tensor([0.3, -0.8], dtype=torch.float64) if base == "of context" else None
    flow = diffeo.Flow(MAF(2, layers=2, hidden=(8,)).build().bijection, bases[base]()).double()
    stirred(flow)
    edge, n = 40.0, 500
    side = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 * edge / n) - edge
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        cooled = tempered(flow, temperature).log_prob(grid, context)
        plain = flow.log_prob(grid, context)
    assert (cooled.exp().sum() * (2 * edge / n) ** 2).item() == pytest.approx(1, abs=1e-4)
    assert (cooled - plain).abs().max() > 0.1


def test_tempered_samples_are_those_of_scaled_noise():
    flow = curved()
    cooled = tempered(flow, 0.7)
    eps = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    x = cooled.sample(50, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(x, flow.to_data(0.7 * eps).detach())
    twice = tempered(cooled, 0.5).sample(50, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(twice, flow.to_data(0.35 * eps).detach())


def test_tempered_at_contexts():
    flow = curved(context=Classes(3))
    classes = torch.tensor([2, 0, 1])
    eps = torch.randn(5, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    x = tempered(flow, 0.7).sample(5, classes, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(x, flow.to_data(0.7 * eps, classes).detach())


def test_tempered_mass_of_counts_sums_to_one():
    column = Columns([Column("a", Integer(), loc=2.0, scale=3.0)], num_draws=64)
    flow = MAF(1, layers=1, hidden=(8,)).build(column).double().eval()
    stirred(flow)
    values = torch.arange(-60.0, 65.0, dtype=torch.float64).unsqueeze(-1)
    masses = {}
    for temperature in (0.5, 1.0, 2.0):
        with torch.no_grad():
            masses[temperature] = tempered(flow, temperature).log_prob(values).exp()
        assert masses[temperature].sum().item() == pytest.approx(1, abs=1e-3)
    spread = [(m * (values[:, 0] - (m * values[:, 0]).sum()) ** 2).sum().sqrt() for m in masses.values()]
    # The counts are a normal's, rounded, which adds the variance of a uniform cell.
    normal = [math.sqrt(float(s) ** 2 - 1 / 12) for s in spread]
    assert normal[1] / normal[0] == pytest.approx(2, rel=1e-2)
    assert normal[2] / normal[1] == pytest.approx(2, rel=1e-2)


def test_tempered_shares_everything_but_the_preset(tmp_path):
    flow = counts().train()
    flow.bijection.eval()
    modes = [module.training for module in flow.modules()]
    cooled = tempered(flow, 0.5)
    assert [module.training for module in flow.modules()] == modes
    assert cooled.training
    assert cooled.base.training
    assert cooled.bijection is flow.bijection
    assert cooled.encoding is flow.encoding
    assert isinstance(cooled.base, Tempered)
    assert cooled.base.base is flow.base
    assert tempered(flow.eval(), 0.5).training is False
    assert flow.preset is not None
    assert cooled.preset is None
    with pytest.raises(DiffeoError, match="by hand|build"):
        diffeo.save(cooled, tmp_path / "cooled")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, 1e-7, 1e7])
def test_temperatures_out_of_range(temperature: float):
    with pytest.raises(ConfigError, match="1e-6 to 1e6") as error:
        tempered(linear_flow(), temperature)
    assert ("to_data" in str(error.value)) == (temperature == 0)


@pytest.mark.parametrize("base", [StudentT((3,)), MixtureOfNormals((3,), 2)], ids=lambda b: type(b).__name__)
def test_only_normals_are_tempered(base):
    with pytest.raises(ConfigError, match=type(base).__name__):
        tempered(diffeo.Flow(Triangular(3), base), 0.5)
