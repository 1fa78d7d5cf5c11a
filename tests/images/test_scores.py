"""Scores of images: those of the flow, whatever holds the images; plain models in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffeo.bases import Normal, StudentT
from diffeo.bijections import Chain, Tokens
from diffeo.encodings import Dequantization
from diffeo.errors import ConfigError, DataError
from diffeo.flow import Flow
from diffeo.images import Images, ImageScores, pixel_baselines, pixel_error, save_image, score_images, scores

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 3, 6, 8), dtype=np.uint8)


def test_pixel_histograms_in_closed_form():
    train = torch.tensor([[0, 7], [0, 9], [255, 9]], dtype=torch.uint8).reshape(3, 1, 1, 2)
    valid = torch.tensor([[0, 9], [255, 200]], dtype=torch.uint8).reshape(2, 1, 1, 2)
    found = pixel_baselines(train, valid)
    mass = [2.5 / 131, 2.5 / 131, 1.5 / 131, 0.5 / 131]
    assert found["uniform"] == 8
    assert found["pixels"] == pytest.approx(-sum(math.log2(p) for p in mass) / 4)
    coarse = pixel_baselines(train, valid, bits=1)
    mass = [2.5 / 4, 3.5 / 4, 1.5 / 4, 0.5 / 4]
    assert coarse["uniform"] == 1
    assert coarse["pixels"] == pytest.approx(-sum(math.log2(p) for p in mass) / 4)


def test_pixel_histograms_in_parts(monkeypatch):
    train, valid = torch.from_numpy(PIXELS), torch.from_numpy(255 - PIXELS)
    whole = pixel_baselines(train, valid)
    monkeypatch.setattr(scores, "_WORK", 256 * 7)
    assert pixel_baselines(train, valid)["pixels"] == pytest.approx(whole["pixels"])


def image_flow() -> Flow:
    bijection = Chain([Tokens((3, 6, 8))])
    return Flow(bijection, Normal(bijection.latent_shape), Dequantization((3, 6, 8)))


def test_scores_of_images():
    flow = image_flow().train()
    flow.bijection.eval()
    modes = [module.training for module in flow.modules()]
    found = score_images(flow, Images.of(PIXELS), batch_size=2)
    assert [module.training for module in flow.modules()] == modes
    want = flow.eval().log_prob(torch.from_numpy(PIXELS))
    np.testing.assert_allclose(found.log_prob, want.numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.bits_per_dim, -want.numpy() / (144 * math.log(2)), rtol=1e-6)
    more = score_images(flow, Images.of(PIXELS), num_draws=8)
    assert flow.encoding.num_draws == 1  # type: ignore[union-attr]
    assert (more.log_prob != found.log_prob).any()
    with pytest.raises(DataError, match=r"the model's are \(3, 6, 8\); read them with size=\(6, 8\)"):
        score_images(flow, Images.of(PIXELS[:, :, :5]))
    with pytest.raises(ConfigError, match="not fitted to images"):
        score_images(Flow(Tokens((3, 6, 8)), Normal((48, 3))), Images.of(PIXELS))


def test_images_of_every_make_are_scored_alike(tmp_path):
    flow = image_flow().eval()
    np.save(tmp_path / "a.npy", PIXELS)
    for i, image in enumerate(PIXELS):
        save_image(torch.from_numpy(image), tmp_path / f"{i}.png")
    wanted = score_images(flow, PIXELS).log_prob
    for images in (torch.from_numpy(PIXELS), Images.of(PIXELS), tmp_path / "a.npy", tmp_path):
        assert np.array_equal(score_images(flow, images).log_prob, wanted)
    large = PIXELS.repeat(2, 2).repeat(2, 3)
    np.save(tmp_path / "large.npy", large.mean(1, keepdims=True).astype(np.uint8))
    assert len(score_images(flow, tmp_path / "large.npy").names) == 5  # read as the flow's images are


def test_the_scores_are_columns():
    found = score_images(image_flow().eval(), PIXELS)
    columns = found.columns()
    assert list(columns) == ["name", "bits_per_dim", "log_prob"]
    assert columns["name"].tolist() == ["0", "1", "2", "3", "4"]
    assert np.array_equal(columns["log_prob"], found.log_prob)


def test_the_error_is_the_largest():
    back = torch.full((2, 1, 2, 2), 100, dtype=torch.uint8)
    back[1, 0, 0, 1] = 93
    assert pixel_error(torch.full_like(back, 100), back) == (7, 0.125)
    assert pixel_error(back, torch.full_like(back, 100)) == (7, 0.125)


def test_bounds_above_one_are_said_and_not_clipped():
    found = scores.ImageScores(["a", "b"], np.array([3.0, -2.0]), np.array([-0.003, 0.002]))
    assert found.notes == (
        "1 of 2 images score above probability 1 (bits below 0): the bound holds on average over the noise "
        "only; use more draws.",
    )
    assert found.columns()["bits_per_dim"][0] == -0.003
    assert scores.ImageScores(["b"], np.array([-2.0]), np.array([0.002])).notes == ()


def test_scores_that_are_not_finite_are_counted():
    flow = image_flow()
    flow.base = StudentT(flow.latent_shape)
    assert score_images(flow, PIXELS).notes == ()
    log_prob = np.array([-3.0, -np.inf, np.nan, -np.inf])
    found = ImageScores(list("abcd"), log_prob, -log_prob)
    lost, odd = found.notes
    assert lost == "2 of 4 images score -inf: outside the support, or too far out for a float."
    assert odd.startswith("1 of 4 images scores NaN: the model's weights are not all numbers")
