"""Trained flows far from their data: a density for every finite point, and NaN never, either way."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import diffeo
from diffeo.functional import native
from diffeo.presets import PRESETS, ImagePreset
from diffeo.testing.points import far_sizes

DEEP: dict[str, dict[str, Any]] = {
    "BPF": {"hidden": 16, "degree": 8},
    "CouplingNSF": {"hidden": 16, "blocks": 1},
    "FFJORD": {"hidden": 8, "layers": 1, "steps": 2},
    "FlowMatching": {"hidden": 8, "layers": 2},
    "Gaussianization": {"layers": 4, "components": 3},
    "Glow": {"levels": 2, "layers": 5, "hidden": 8},
    "IAF": {"hidden": (16,)},
    "IResNet": {"layers": 4, "hidden": (16,)},
    "Jet": {"patch": 2, "layers": 4, "hidden": 8, "heads": 2},
    "MAF": {"hidden": (16,)},
    "NAF": {"hidden": 16, "blocks": 1, "units": 4},
    "NICE": {"hidden": (16,)},
    "NSF": {"hidden": 16, "blocks": 1},
    "PixelFlow": {"hidden": 8, "blocks": 1, "kernel": 3, "bins": 8},
    "Planar": {"layers": 4},
    "Radial": {"layers": 4},
    "RealNVP": {"hidden": (16,)},
    "RealNVPImage": {"levels": 1, "layers": 2, "hidden": 8},
    "ResidualFlow": {"layers": 3, "hidden": (16,)},
    "RevNet": {"hidden": (16,)},
    "SOSPF": {"hidden": 16, "blocks": 1, "degree": 3},
    "SplineGlow": {"levels": 2, "layers": 2, "hidden": 8},
    "Sylvester": {"layers": 4},
    "Tabular": {"hidden": 16, "blocks": 1},
    "TarFlow": {"patch": 2, "hidden": 8, "heads": 2, "blocks": 3, "layers": 1},
    "UNAF": {"layers": 2, "hidden": 16, "blocks": 1, "width": 8},
}
BOTH = [True, False] if native.native is not None else [False]


def rows() -> Tensor:
    """A heavy tail, a narrow relation and a gap."""
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 400, generator=g)
    return torch.stack([a.exp(), a.sin() + 0.05 * b, b + 4 * b.sign()], 1)


def images() -> Tensor:
    """Gradients of gray, 4 x 4."""
    g = torch.Generator().manual_seed(0)
    slopes, ramp = torch.rand(400, 2, 1, generator=g), torch.arange(4.0) / 8
    pixels = (slopes[:, 0] * ramp)[:, None, :] + (slopes[:, 1] * ramp)[:, :, None]
    return (255 * pixels).byte().unsqueeze(1)


@functools.cache
def trained(name: str) -> diffeo.Flow:
    torch.manual_seed(0)
    kind: Any = PRESETS[name]
    if issubclass(kind, ImagePreset):
        preset, data = kind((1, 4, 4), **DEEP[name]), images()
        flow = preset.build(preset.encoding())
    else:
        flow, data = kind(3, **DEEP[name]).build(), rows()
    diffeo.fit(flow, data, max_steps=200, batch_size=16, seed=0, progress=False)
    return flow.eval()


@contextmanager
def kernels(on: bool) -> Iterator[None]:
    before = native.native
    native.native = before if on else None
    try:
        yield
    finally:
        native.native = before


def far_points(near: Tensor, size: float) -> Tensor:
    """Every element far, by sign and all one way, and each element alone."""
    flat = near.flatten(1)[:6]
    all_far = torch.cat([size * flat.sign(), flat.new_full((1, flat.shape[1]), size)])
    alone = flat[:1].repeat(flat.shape[1], 1)
    alone.diagonal().fill_(-size)
    return torch.cat([all_far, alone]).reshape(-1, *near.shape[1:])


def test_every_preset_is_tried():
    assert set(DEEP) == set(PRESETS) - {"Mixed"}  # whose points are cells


@pytest.mark.parametrize("on", BOTH, ids=lambda on: "kernels" if on else "plain")
@pytest.mark.parametrize("name", DEEP)
def test_a_trained_flow_is_never_nan(name: str, on: bool):
    flow = trained(name)
    x = rows()[:50] if flow.encoding is None else flow.encoding.encode(images()[:50])[0][0]
    bare = flow.without_encoding()
    with kernels(on), torch.no_grad():
        for dtype in (torch.float32, torch.float64):
            bare, x = bare.to(dtype), x.to(dtype)
            near, z = bare.log_prob(x), bare.to_latent(x)
            sizes = [1e3, 1e6, *far_sizes(dtype)[:-1]]
            for size in sizes if on else sizes[1::3]:
                log_prob = bare.log_prob(far_points(x, size))
                assert not log_prob.isnan().any(), size
                assert (log_prob <= near.max()).all(), size
                value, log_det = bare.bijection.inverse(far_points(z, size))
                assert not value.isnan().any(), size
                assert not log_det.isnan().any(), size
    trained(name).float()


@pytest.mark.parametrize("name", ["Glow", "RealNVPImage", "SplineGlow", "Jet", "TarFlow", "PixelFlow"])
def test_images_unlike_all_others_have_scores(name: str):
    flow, pixels = trained(name), images()[:40]
    g = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, pixels.shape, generator=g).byte()
    odd = [255 - pixels, noise, torch.where(noise < 20, 255 * (noise % 2), pixels)]
    odd += [torch.zeros_like(pixels[:1]), torch.full_like(pixels[:1], 255)]
    assert flow.log_prob(torch.cat(odd)).isfinite().all()


def test_nan_in_and_nan_weights_stay_nan():
    flow = trained("RealNVP")
    x = rows()[:4]
    x[1, 0] = torch.nan
    x[2] = 3e38
    found = flow.log_prob(x)
    assert found.isnan().tolist() == [False, True, False, False]
    assert found[2] == -torch.inf
    lost = PRESETS["RealNVP"](3, **DEEP["RealNVP"]).build()
    lost.load_state_dict(flow.state_dict())
    next(p for n, p in lost.named_parameters() if "output" in n).data.fill_(torch.nan)
    assert lost.log_prob(x).isnan().all()
