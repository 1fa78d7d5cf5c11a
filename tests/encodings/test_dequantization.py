"""``Dequantization``: log masses of discrete images to the last constant, noise that belongs to an image."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from diffeo.train.data import rows_for
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import diffeo
from diffeo.bases import Normal, Uniform
from diffeo.bijections import Pointwise
from diffeo.bijections.base import Bijection
from diffeo.elementwise import Affine
from diffeo.encodings import Dequantization, Noise, UniformNoise, VariationalNoise, bits_per_dim
from diffeo.encodings.noise import hashed_uniform
from diffeo.errors import ConfigError, DataError, FormatError, ShapeError
from diffeo.flow import Flow
from diffeo.functional.normal_cdf import log_tails
from diffeo.presets import Glow
from diffeo.testing import randomize_

EVERY = torch.arange(256).reshape(-1, 1, 1, 1)
"""All images of one pixel."""


class Same(Bijection):
    domain = codomain = None

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(x.shape[:-3])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self(y, context)


class Still(Noise):
    """The same place in every cell, with a density that is made up."""

    def __init__(self, u: float, log_q: float = 0.0):
        super().__init__()
        self.u, self.log_q = u, log_q

    def forward(self, uniform: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(uniform, self.u), uniform.new_full(uniform.shape[:-3], self.log_q)


@pytest.fixture(autouse=True)
def same_start():
    """Nets start at random: the same start in every run, whichever tests ran before."""
    torch.manual_seed(0)


def random_images(count: int, *shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, *shape), dtype=torch.uint8, generator=g)


def steep(scale: float, shift: float, door: Dequantization) -> Flow:
    """A flow with a normal base: its mass of an interval is known. In float64, in evaluation."""
    map = Pointwise(Affine(), door.latent_shape).double()
    # r with r / (1 + |r| / c) = log(scale)
    r = math.log(scale) / (1 - abs(math.log(scale)) / math.log(1000))
    map.params.data.copy_(torch.tensor([shift, r], dtype=torch.float64).expand_as(map.params))
    return Flow(map, Normal(door.latent_shape), door).double().eval()


def log_mass(scale: float, shift: float, levels: int, k: Tensor, logit: float | None = None) -> Tensor:
    """The exact log mass of cells 0 .. levels - 1 under ``steep``, from the normal distribution function."""

    def z(edge: Tensor) -> Tensor:
        v = edge.double() / levels
        y = v - 0.5 if logit is None else torch.logit(logit + (1 - 2 * logit) * v)
        return scale * y + shift

    low, high = z(k), z(k + 1)
    flip = low > 0  # differences of the smaller tail
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    a, b = log_tails(high)[0], log_tails(low)[0]
    return (a + torch.log1p(-(b - a).exp())).sum((-3, -2, -1))


# -- the likelihood -----------------------------------------------------------------------------------


def test_one_image_by_hand():
    door = Dequantization((1, 1, 2), noise=Still(0.25, 0.3))
    flow = steep(2.0, 0.5, door)
    x = torch.tensor([[[3, 200]]])
    z = [2 * ((pixel + 0.25) / 256 - 0.5) + 0.5 for pixel in (3, 200)]
    log_normal = sum(-0.5 * a * a - 0.5 * math.log(2 * math.pi) for a in z)
    # the normal density, two slopes of 2, two cells of 1/256, one density of the noise
    wanted = log_normal + 2 * math.log(2) - 2 * math.log(256) - 0.3
    torch.testing.assert_close(flow.log_prob(x).item(), wanted, rtol=1e-13, atol=0)
    bits = bits_per_dim(flow.log_prob(x), door.event_shape)
    torch.testing.assert_close(bits.item(), -wanted / 2 / math.log(2), rtol=1e-13, atol=0)


def test_one_image_by_hand_through_the_logit():
    door = Dequantization((1, 1, 1), 3, noise=Still(0.5), logit=0.1)
    flow = steep(1.5, -0.2, door)
    p = 0.1 + 0.8 * (5 + 0.5) / 8  # 170 is level 5 of 8
    z = 1.5 * math.log(p / (1 - p)) - 0.2
    slope = 1.5 * 0.8 / (p * (1 - p)) / 8
    wanted = -0.5 * z * z - 0.5 * math.log(2 * math.pi) + math.log(slope)
    found = flow.log_prob(torch.tensor([[[170.0]]])).item()
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=0)


def test_the_uniform_model_takes_8_bits_exactly():
    for bits, draws in ((8, 1), (8, 5), (5, 3), (1, 1)):
        door = Dequantization((3, 4, 5), bits, draws=draws)
        flow = Flow(Same((3, 4, 5)), Uniform((3, 4, 5), -0.5, 0.5), door)
        for mode in (flow.train(), flow.eval()):
            found = bits_per_dim(mode.double().log_prob(random_images(7, 3, 4, 5)), door.event_shape)
            torch.testing.assert_close(found, torch.full((7,), float(bits)).double(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("bits", "logit"), [(8, None), (8, 0.05), (5, None), (2, 0.2)], ids=lambda option: f"{option}"
)
@pytest.mark.parametrize("noise", ["uniform", "variational"])
def test_many_draws_give_the_exact_log_mass(bits: int, logit: float | None, noise: str):
    for shape in ((1, 1, 1), (1, 1, 2)):
        other = randomize_(VariationalNoise(shape, 4, 2), scale=0.2) if noise == "variational" else None
        door = Dequantization(shape, bits, noise=other, logit=logit)
        slope = 0.8 * 2.0**bits if logit is None else 0.2 * 2.0**bits  # the density bends within a cell
        flow = steep(slope, 0.3, door)
        # around the mode, where all cells matter, and away from it
        near = 2 ** (bits - 1) + torch.arange(-2, 3)
        k = near.clamp(0, 2**bits - 1)[:, None].expand(-1, shape[2]).reshape(-1, *shape)
        wanted = log_mass(slope, 0.3, 2**bits, k, logit)
        door.draws = 2048
        with torch.no_grad():
            each = flow.draws(k << (8 - bits))
            assert len(each) == 2048
            torch.testing.assert_close(flow.log_prob(k << (8 - bits)), each.logsumexp(0) - math.log(2048))
        error = each.exp().std(0) / each.exp().mean(0) / math.sqrt(2048)
        assert error.max() < 0.15
        assert ((each.logsumexp(0) - math.log(2048) - wanted).abs() <= 4.5 * error + 1e-6).all()
        assert each.mean() < wanted.mean()  # a single draw is a bound on the average


def test_more_draws_tighten_the_bound():
    door = Dequantization((1, 1, 2))
    flow = steep(150.0, 0.0, door)
    x = 128 + torch.cartesian_prod(torch.arange(-8, 8), torch.arange(-8, 8)).reshape(-1, 1, 1, 2)
    exact = log_mass(150.0, 0.0, 256, x).mean()
    bounds = []
    for draws in (1, 4, 16, 64, 4096):
        door.draws = draws
        bounds.append(flow.log_prob(x).mean().item())
    assert bounds == sorted(bounds)
    assert exact - bounds[0] > 0.1
    assert abs(exact - bounds[-1]) < 4e-3


def test_the_masses_of_all_images_sum_to_one():
    door = Dequantization((1, 1, 1), draws=256)
    total = steep(5.0, 0.4, door).log_prob(EVERY).exp().sum()
    tails = log_tails(torch.tensor([-2.1, -2.9]).double())[0].exp().sum()  # beyond v = -1/2 and 1/2
    torch.testing.assert_close(total + tails, torch.ones(()).double(), rtol=0, atol=1e-4)


# -- variational noise --------------------------------------------------------------------------------


def test_variational_noise_starts_as_uniform_noise():
    for dtype in (torch.float32, torch.float64):
        noise = VariationalNoise((2, 3, 3)).to(dtype)
        uniform = torch.rand(3, 5, 2, 3, 3, dtype=dtype).clamp(2**-24, 1 - 2**-24)
        u, log_q = noise(uniform, torch.rand(5, 2, 3, 3, dtype=dtype) - 0.5)
        ends = 1024 * torch.finfo(dtype).eps  # kept free, and counted
        torch.testing.assert_close(u, ends + (1 - 2 * ends) * uniform)
        gap = (log_q + 18 * math.log1p(-2 * ends)).abs().max()
        assert gap < 1e-4 if dtype == torch.float32 else gap < 1e-12


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (2, 1, 1), (3, 1, 1), (1, 3, 5), (2, 3, 2)])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_its_density_against_autograd(shape: tuple[int, ...], layers: int):
    noise = randomize_(VariationalNoise(shape, 5, layers).double(), scale=0.15)
    g = torch.Generator().manual_seed(0)
    uniform = torch.rand(4, 3, *shape, generator=g, dtype=torch.float64) * 0.98 + 0.01
    image = torch.rand(3, *shape, generator=g, dtype=torch.float64) - 0.5
    u, log_q = noise(uniform, image)
    assert ((u > 0) & (u < 1)).all()
    assert log_q.abs().mean() > 0.01
    for i in range(4):
        for j in range(3):

            def place(t: Tensor, j: int = j) -> Tensor:
                return noise(t.reshape(1, 1, *shape), image[j : j + 1])[0].flatten()

            jacobian = torch.autograd.functional.jacobian(place, uniform[i, j].flatten())
            wanted = -torch.linalg.slogdet(jacobian)[1]  # the density of the uniform numbers is 1
            torch.testing.assert_close(log_q[i, j], wanted, rtol=1e-9, atol=1e-9)


def test_its_density_integrates_to_one_and_costs_its_divergence():
    noise = randomize_(VariationalNoise((1, 1, 1), 6).double(), scale=0.5)
    noise.get_parameter("affine.bias").data.copy_(torch.tensor([0.7, 0.6]))
    edges = torch.linspace(0, 1, 20_001, dtype=torch.float64).clamp(1e-12, 1 - 1e-12).reshape(-1, 1, 1, 1, 1)
    middles = 0.5 * (edges[1:] + edges[:-1])
    door = Dequantization((1, 1, 1), noise=noise, draws=4096).double().eval()
    for pixel in (0, 100, 255):
        image = torch.full((1, 1, 1, 1), (pixel + 0.5) / 256 - 0.5).double()
        with torch.no_grad():
            u, _ = noise(edges, image)
            _, log_q = noise(middles, image)
        steps = u.flatten().diff()
        torch.testing.assert_close(
            (log_q.flatten().exp() * steps).sum(), torch.ones(()).double(), rtol=0, atol=1e-3
        )
        # E_q log q, where q = de / du by differences
        share = edges.flatten().diff()
        divergence = (share * (share / steps).log()).sum()
        assert divergence > 0.02
        with torch.no_grad():
            bits = bits_per_dim(door.encode(torch.tensor([[[pixel]]]))[1], (1,))
        error = bits.std() / math.sqrt(len(bits))
        assert abs(bits.mean() - (8 + divergence / math.log(2))) < 4.5 * error
        assert bits.mean() - 8 > 3 * error


def test_it_learns_a_tighter_bound():
    door = Dequantization((1, 1, 2), 3, noise=VariationalNoise((1, 1, 2), 8, 2), draws=64)
    flow = steep(12.0, 0.0, door)
    flow.bijection.requires_grad_(False)
    k = 4 + torch.cartesian_prod(torch.arange(-2, 2), torch.arange(-2, 2)).reshape(-1, 1, 1, 2)
    x, exact = k << 5, log_mass(12.0, 0.0, 8, k).mean()

    def bound() -> float:
        with torch.no_grad():
            return float(flow.eval().draws(x).mean())

    before = bound()
    optimizer = torch.optim.Adam(door.noise.parameters(), lr=0.01)
    for _ in range(150):
        loss = -flow.train().log_prob(x.expand(8, *x.shape).flatten(0, 1)).mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in door.noise.parameters())
        optimizer.step()
    assert before < exact - 0.2
    assert exact - bound() < 0.3 * (exact - before)
    assert bound() < exact


def test_saturated_noise_stays_finite():
    for dtype in (torch.float32, torch.float64):
        noise = VariationalNoise((1, 1, 2), 4, 2).to(dtype)
        for p in noise.parameters():
            p.data.fill_(50.0)
        door = Dequantization((1, 1, 2), noise=noise, draws=16).to(dtype)
        x = random_images(50, 1, 1, 2)
        for mode in (door.train(), door.eval()):
            v, log_weight = mode.encode(x)
            assert v.isfinite().all()
            assert log_weight.isfinite().all()
            assert all(torch.equal(door.decode(draw.detach()), x) for draw in v)


# -- fixed noise and fresh noise ------------------------------------------------------------------------


def test_evaluation_depends_on_the_image_alone():
    x = random_images(6, 1, 5, 4)
    door = Dequantization((1, 5, 4), draws=3).eval()
    whole = door.encode(x)[0]
    assert torch.equal(whole, door.encode(x)[0])
    for i in range(len(x)):
        assert torch.equal(door.encode(x[i])[0], whole[:, i])
        assert torch.equal(door.encode(x[i:].double())[0], whole[:, i:])
    assert torch.equal(door.encode(x.reshape(2, 3, 1, 5, 4))[0], whole.reshape(3, 2, 3, 1, 5, 4))
    door.draws = 5
    assert torch.equal(door.encode(x)[0][:3], whole)
    torch.testing.assert_close(door.double().encode(x)[0][:3].float(), whole)


def test_hashed_numbers_are_uniform_and_independent():
    # the hardest images: equal but for one pixel, by one level
    images = torch.full((512, 1, 8, 16), 7, dtype=torch.uint8)
    images.flatten(1)[torch.arange(512), torch.arange(512) % 128] += 1 + (torch.arange(512) // 128).byte()
    u = hashed_uniform(images, 4, torch.float64).flatten(2)  # draws, images, pixels
    assert u.min() > 0
    assert u.max() < 1
    bins = 1024
    counts = torch.bincount((u.flatten() * bins).long(), minlength=bins).double()
    expected = u.numel() / bins
    chi2 = ((counts - expected).square() / expected).sum()
    assert abs(chi2 - (bins - 1)) < 5 * math.sqrt(2 * bins)
    low = torch.bincount(
        ((u.flatten() * 2**23).long() % bins), minlength=bins
    ).double()  # the lowest bits too
    assert abs(((low - expected).square() / expected).sum() - (bins - 1)) < 5 * math.sqrt(2 * bins)
    z = (u - 0.5) * math.sqrt(12)
    pairs = {
        "draws": (z[0], z[1]),
        "images": (z[:, :-1], z[:, 1:]),
        "images of the same pixel": (z[:, :128], z[:, 128:256]),
        "pixels": (z[..., :-1], z[..., 1:]),
        "rows of pixels": (z[..., :-16], z[..., 16:]),
    }
    for name, (a, b) in pairs.items():
        assert abs((a * b).mean()) * math.sqrt(a.numel()) < 4.5, name
        assert abs((a * a * b * b).mean() - 1) * math.sqrt(a.numel()) < 4.5 * 1.5, name
    # all pairs of images: correlations as small as chance has them, no pair alike
    c = z[0] @ z[0].T / 128 * math.sqrt(128)
    off = c[~torch.eye(512, dtype=torch.bool)]
    assert off.abs().max() < 6.5
    assert abs(off.square().mean() - 1) < 0.05
    assert len(u[0, :, 0].unique()) == 512


def test_a_mean_over_images_averages_over_the_noise():
    x = torch.cat([EVERY, EVERY.flip(0)], -1)
    door = Dequantization((1, 1, 2)).eval()
    u = (door.double().encode(x)[0][0] + 0.5) * 256 - x
    assert abs(u.mean() - 0.5) < 4.5 / math.sqrt(12 * u.numel())
    assert u.std() > 0.27


def test_training_draws_from_the_default_generator():
    x = random_images(5, 1, 3, 3)
    for noise in (None, randomize_(VariationalNoise((1, 3, 3), 4), scale=0.05)):
        door = Dequantization((1, 3, 3), noise=noise, draws=7).train()
        torch.manual_seed(3)
        first = door.encode(x)[0]
        assert first.shape == (1, 5, 1, 3, 3)
        second = door.encode(x)[0]
        torch.manual_seed(3)
        assert torch.equal(door.encode(x)[0], first)
        assert (first != second).float().mean() > 0.9  # in float32 some may agree
    u = (Dequantization((1, 3, 3)).encode(x.expand(400, 5, 1, 3, 3))[0] + 0.5) * 256 - x
    assert abs(u.mean() - 0.5) < 4.5 / math.sqrt(12 * u.numel())
    assert u.min() > 0
    assert u.max() < 1


# -- the door -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", [None, 1e-30, 1e-6, 0.05, 0.25])
@pytest.mark.parametrize("bits", range(1, 9))
def test_round_trips_are_exact(dtype: torch.dtype, logit: float | None, bits: int):
    x = EVERY.expand(-1, 1, 3, 5).to(torch.uint8)
    wanted = (x >> (8 - bits)) << (8 - bits)
    for noise in (None, *map(Still, (0.0, 1e-30, 1e-9, 0.5, 1 - 1e-9, 1.0))):
        door = Dequantization((1, 3, 5), bits, noise=noise, logit=logit, draws=8).to(dtype)
        for mode in (door.train(), door.eval()):
            v, log_weight = mode.encode(x)
            assert v.dtype == log_weight.dtype == dtype
            assert log_weight.isfinite().all()
            assert logit is not None or v.abs().max() < 0.5
            for draw in v:
                back = door.decode(draw)
                assert back.dtype == torch.uint8
                assert torch.equal(back, wanted)


def test_codes_beyond_every_level_are_decoded_to_the_ends():
    for logit in (None, 0.05):
        door = Dequantization((1, 1, 5), 5, logit=logit)
        v = torch.tensor([[[-math.inf, -1e30, 0.0, 1e30, math.inf]]])
        assert door.decode(v).tolist() == [[[0, 0, 128, 248, 248]]]
        with pytest.raises(DataError, match="NaN"):
            door.decode(v.fill_(math.nan))


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.int64, torch.bool, torch.float16, torch.bfloat16]
)
def test_any_real_dtype_may_hold_the_pixels(dtype: torch.dtype):
    door = Dequantization((1, 2, 2)).eval()
    x = torch.tensor([0, 1, 1, 0]).reshape(1, 2, 2)
    for a, b in zip(door.encode(x.to(dtype)), door.encode(x.double()), strict=True):
        assert torch.equal(a, b)


def test_what_is_no_pixel_scores_minus_infinity_and_nan_stays():
    door = Dequantization((1, 1, 2), draws=3).eval()
    for value in (-1, 256, 0.5, 254.999, -1e-9, math.inf, -math.inf):
        x = torch.tensor([[[[7.0, value]]], [[[7.0, 8.0]]]]).double()
        v, log_weight = door.encode(x)
        assert v.isfinite().all()
        assert log_weight[:, 0].tolist() == [-math.inf] * 3
        assert log_weight[:, 1].isfinite().all()
        x[0, 0, 0, 0] = math.nan
        v, log_weight = door.encode(x)
        assert v[:, 0, 0, 0, 0].isnan().all()
        assert log_weight[:, 0].isnan().all()
        assert v[:, 1].isfinite().all()
        assert log_weight[:, 1].isfinite().all()
    assert door.encode(torch.tensor([[[300, -1]]]))[1].tolist() == [-math.inf] * 3


def test_nothing_is_made_in_float64():
    found = set()

    class Dtypes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            found.update(
                {t.dtype for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, Tensor)}
            )
            return out

    for noise in (None, VariationalNoise((1, 3, 3), 4)):
        for logit in (None, 0.05):
            door = Dequantization((1, 3, 3), noise=noise, logit=logit)
            with Dtypes():
                door.train().encode(random_images(2, 1, 3, 3))
                door.decode(door.eval().encode(random_images(2, 1, 3, 3))[0][0])
    assert torch.float32 in found
    assert torch.float64 not in found


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shape": (28, 28)}, "channels, height, width"),
        ({"shape": (1, 0, 3)}, "height must be a whole number from 1"),
        ({"shape": (1, 16384, 16384)}, "too large"),
        ({"bits": 9}, "bits must be a whole number from 1 to 8"),
        ({"bits": 0}, "bits"),
        ({"logit": 0.0}, "logit must be None or a number above 0"),
        ({"logit": 0.5}, "logit"),
        ({"draws": 0}, "draws must be a whole number from 1 to 4096"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], says: str):
    every: dict[str, Any] = {"shape": (1, 4, 4), **options}
    with pytest.raises(ConfigError, match=says):
        Dequantization(**every)


def test_more_that_cannot_be():
    with pytest.raises(ConfigError, match="hidden must be"):
        VariationalNoise((1, 4, 4), hidden=0)
    with pytest.raises(ConfigError, match="layers must be"):
        VariationalNoise((1, 4, 4), layers=65)
    with pytest.raises(ShapeError, match=r"images \(1, 4, 4\), not \(1, 4, 5\)"):
        Dequantization((1, 4, 5), noise=VariationalNoise((1, 4, 4)))
    door = Dequantization((1, 4, 4))
    with pytest.raises(ConfigError, match="draws"):
        door.draws = 0


# -- files and data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "door",
    [
        Dequantization((3, 2, 1)),
        Dequantization((1, 4, 4), 5, noise=UniformNoise(), logit=0.05, draws=3),
        Dequantization((1, 4, 4), noise=VariationalNoise((1, 4, 4), 6, 3)),
    ],
)
def test_json(door: Dequantization):
    spec = json.loads(json.dumps(door.to_json()))
    twin = Dequantization.from_json(spec)
    assert twin.to_json() == door.to_json()
    assert {k: v.shape for k, v in twin.state_dict().items()} == {
        k: v.shape for k, v in door.state_dict().items()
    }


SPEC = Dequantization((1, 4, 4), noise=VariationalNoise((1, 4, 4), 6, 3)).to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [4, 4]},
        {"shape": [1, 4, 4.0]},
        {"shape": [1, 4, True]},
        {"shape": [2**40, 4, 4]},
        {"shape": [16384, 16384, 16384]},
        {"shape": "144"},
        {"shape": {}},
        {"bits": "8"},
        {"bits": 9},
        {"logit": 0.4},
        {"logit": "nan"},
        {"logit": math.nan},
        {"draws": 10**9},
        {"draws": True},
        {"noise": None},
        {"noise": {}},
        {"noise": {"kind": ["UniformNoise"]}},
        {"noise": {"kind": "Noise"}},
        {"noise": {"kind": "UniformNoise", "hidden": 3}},
        {"noise": {"kind": "VariationalNoise", "hidden": 6}},
        {"noise": {"kind": "VariationalNoise", "hidden": 10**9, "layers": 1}},
        {"noise": {"kind": "VariationalNoise", "hidden": 6, "layers": -1}},
        {"extra": 1},
    ],
    ids=repr,
)
def test_malformed_json_is_refused(change: dict[str, Any]):
    with pytest.raises(FormatError):
        Dequantization.from_json({**SPEC, **change})
    with pytest.raises(FormatError):
        Dequantization.from_json(list(SPEC))  # type: ignore[arg-type]


@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_preset_behind_it_is_saved_and_loaded(tmp_path: Any, variational: bool, dtype: torch.dtype):
    shape = (1, 4, 4)
    noise = VariationalNoise(shape, 4, 2) if variational else None
    flow = Glow(shape, levels=1, layers=1, hidden=4).build(Dequantization(shape, 5, noise=noise)).to(dtype)
    randomize_(flow, scale=0.1).eval()
    x = random_images(6, *shape)
    diffeo.save(flow, tmp_path / "model")
    loaded = diffeo.load(tmp_path / "model")
    torch.testing.assert_close(loaded.log_prob(x), flow.log_prob(x), rtol=0, atol=0)
    assert isinstance(loaded.encoding, Dequantization)
    loaded.encoding.draws = 4
    assert loaded.draws(x).shape == (4, 6)
    torch.testing.assert_close(loaded.draws(x)[0], flow.log_prob(x))
    diffeo.save(loaded, tmp_path / "again")
    again = diffeo.load(tmp_path / "again")
    torch.testing.assert_close(again.log_prob(x), loaded.log_prob(x), rtol=0, atol=0)
    diffeo.save(flow, tmp_path / "weights", weights_only=True)
    assert diffeo.load(tmp_path / "weights", into=loaded) is loaded
    sample = loaded.sample(3)
    assert sample.dtype == torch.uint8
    assert sample.shape == (3, *shape)
    assert (sample % 8 == 0).all()


def test_fit_holds_images_as_bytes():
    flow = steep(1.0, 0.0, Dequantization((1, 2, 3)))
    x = random_images(20, 1, 2, 3)
    for given in (x, x.numpy(), x.double().numpy(), x.long(), x.float()):
        rows = rows_for(flow, given, None, None)
        assert rows.x.dtype == torch.uint8
        assert torch.equal(rows.x, x)
    assert torch.equal(rows_for(flow, (x > 99), None, None).x, (x > 99).to(torch.uint8))

    def bits() -> float:
        with torch.no_grad():
            return float(bits_per_dim(flow.eval().log_prob(x), flow.event_shape).mean())

    before = bits()
    diffeo.fit(flow, x.numpy(), max_steps=30, validation=0)
    assert bits() < before


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (255.5, r"x has 1 values .* 0 to 255, the first in row 3 at \(0, 1, 2\): 255.5; round and clip"),
        (256, r"row 3 at \(0, 1, 2\): 256; round and clip"),
        (-1, r"row 3 at \(0, 1, 2\): -1; "),
        (math.nan, r"x has 1 values that are not finite, the first in row 3"),
    ],
)
def test_fit_names_the_image_and_the_place_of_what_is_no_pixel(value: float, says: str):
    x = random_images(20, 1, 2, 3).double()
    x[3, 0, 1, 2] = value
    with pytest.raises(DataError, match=says):
        diffeo.fit(steep(1.0, 0.0, Dequantization((1, 2, 3))), x, max_steps=1)


def test_fit_tells_images_between_0_and_1_what_to_do():
    x = random_images(20, 1, 2, 3) / 255
    with pytest.raises(DataError, match="multiply by 255 and round"):
        diffeo.fit(steep(1.0, 0.0, Dequantization((1, 2, 3))), x, max_steps=1)
    assert torch.equal(
        rows_for(steep(1.0, 0.0, Dequantization((1, 2, 3))), (x * 255).round(), None, None).x,
        random_images(20, 1, 2, 3),
    )


def test_bits_per_dim():
    assert diffeo.bits_per_dim is bits_per_dim
    torch.testing.assert_close(
        bits_per_dim(torch.tensor([-12.0, 6.0]), (1, 2, 3)), torch.tensor([2.0, -1.0]) / math.log(2)
    )
