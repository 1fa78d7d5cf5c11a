"""Autoencoders against closed forms: a linear Gaussian model, whose evidence and posterior are known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.distributions import MultivariateNormal, Normal

import diffeo
from diffeo import autoencoders as ae
from diffeo.bijections import Inverse
from diffeo.bijections.base import Bijection
from diffeo.errors import ConfigError, DataError, ShapeError
from diffeo.flow import Flow
from diffeo.functional.affine import soft_clip
from diffeo.functional.matmul_precision import matmul_dtype
from diffeo.nets import MLP
from diffeo.objectives import ELBO, Batch, Likelihood
from diffeo.train import OptimizerSettings, fit

F64 = torch.float64
D, L = 3, 2
W = torch.tensor([[1.0, 0.5], [-0.3, 0.8], [0.2, 1.1]], dtype=F64)
SHIFT = torch.tensor([0.4, -1.0, 0.3], dtype=F64)
SIGMA = 0.7
X = torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5], [2.0, 1.0, -1.0]], dtype=F64)
PRECISION = torch.eye(L, dtype=F64) + W.T @ W / SIGMA**2
"""Of the exact posterior; its mean is ``PRECISION^-1 W^T (x - SHIFT) / SIGMA^2``."""


class LinearGaussian(ae.Decoder):
    """``x = W z + SHIFT + SIGMA noise``."""

    def __init__(self) -> None:
        super().__init__((D,), L)

    def mean(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        return z @ W.T + SHIFT

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        return Normal(self.mean(z), SIGMA).log_prob(x).sum(-1)

    def sample(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        mean = self.mean(z)
        return mean + SIGMA * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)


class Linear(Bijection):
    """``y = A x``."""

    matrix: Tensor

    def __init__(self, matrix: Tensor):
        super().__init__((len(matrix),))
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x @ self.matrix.T, torch.linalg.slogdet(self.matrix)[1].expand(x.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y @ self.matrix.inverse().T, -torch.linalg.slogdet(self.matrix)[1].expand(y.shape[:-1])


def model(posterior: Flow, num_draws: int = 1, prior: Flow | None = None) -> Flow:
    return (
        ae.autoencoder(nn.Identity(), posterior, LinearGaussian(), prior, num_draws=num_draws).double().eval()
    )


def exact() -> Flow:
    """The exact posterior: ``z = R^-1 (R mean + noise)`` with ``R^T R`` its precision."""
    root = torch.linalg.cholesky(PRECISION).T
    flow = ae.posterior(L, D, [Linear(root)]).double()
    to_mean = root @ PRECISION.inverse() @ W.T / SIGMA**2
    with torch.no_grad():
        layer = flow.base.net.output  # type: ignore[union-attr]
        layer.weight[:L] = to_mean
        layer.bias[:L] = -to_mean @ SHIFT
    return flow


def rough() -> Flow:
    """A diagonal posterior, too wide and not quite in place."""
    flow = ae.diagonal(L, D).double()
    with torch.no_grad():
        layer = flow.base.net.output  # type: ignore[union-attr]
        layer.weight[:L] = 0.8 * PRECISION.inverse() @ W.T / SIGMA**2
        layer.bias[L:] = -0.2
    return flow


def log_evidence(x: Tensor) -> Tensor:
    return MultivariateNormal(SHIFT, W @ W.T + SIGMA**2 * torch.eye(D, dtype=F64)).log_prob(x)


def test_with_the_exact_posterior_every_draw_is_the_evidence():
    flow = model(exact(), num_draws=7)
    wanted = log_evidence(X)
    assert torch.allclose(flow.draw_log_probs(X), wanted.expand(7, 3), rtol=0, atol=1e-10)
    assert torch.allclose(flow.train().draw_log_probs(X), wanted.expand(7, 3), rtol=0, atol=1e-10)
    found = ae.evidence(flow, X, num_draws=5)
    assert torch.allclose(found.log_prob, wanted, atol=1e-10)
    assert torch.allclose(found.ess, torch.ones(3, dtype=F64), atol=1e-9)
    assert found.error.max() < 1e-9


def test_the_bound_rises_with_the_draws_to_the_evidence():
    flow, wanted = model(rough()), log_evidence(X)
    bounds = [ae.evidence(flow, X, 20_000).elbo.mean()]
    for k in (4, 32):
        weights = ae.evidence(flow, X, 20_000 // k * k).log_weights
        bounds.append((weights.unflatten(0, (-1, k)).logsumexp(1) - math.log(k)).mean())
    bounds.append(wanted.mean())
    assert all(a + 0.005 < b for a, b in pairwise(bounds)), bounds
    found = ae.evidence(flow, X, 100_000)
    assert ((found.log_prob - wanted).abs() < 4 * found.error).all()
    assert found.error.min() > 0.001
    assert found.error.max() < 0.05
    assert found.ess.max() < 0.95


def test_the_error_is_the_spread_of_the_estimates():
    flow = model(rough())
    generator = Generator().manual_seed(0)
    runs = [ae.evidence(flow, X, 400, generator=generator) for _ in range(200)]
    spread = torch.stack([r.log_prob for r in runs]).std(0)
    stated = torch.stack([r.error for r in runs]).mean(0)
    assert ((spread / stated - 1).abs() < 0.25).all()


def test_log_prob_is_the_importance_weighted_bound():
    flow = model(rough(), num_draws=16)
    assert torch.allclose(flow.log_prob(X), flow.draw_log_probs(X).logsumexp(0) - math.log(16))
    batch = Batch(X, None, torch.tensor([1.0, 2.0, 0.0], dtype=F64), torch.arange(3))
    each = -flow.draw_log_probs(X).mean(0)
    assert torch.allclose(ELBO()(flow, batch), (each[0] + 2 * each[1]) / 3)
    assert ELBO()(flow, batch) > Likelihood()(flow, batch)


def test_gradients_are_those_of_the_closed_form():
    flow = model(rough()).train()
    encoding = flow.encoding
    assert isinstance(encoding, ae.VariationalEncoding)
    layer = encoding.posterior.base.net.output  # type: ignore[union-attr]
    x = X[1]

    loc, raw = (layer.weight @ x + layer.bias).chunk(2)
    variance = (2 * soft_clip(raw, math.log(1000.0))).exp()
    off = x - SHIFT - W @ loc
    closed = -0.5 * (off.square().sum() + (W.square() @ variance).sum()) / SIGMA**2
    closed = closed - D * math.log(SIGMA) - 0.5 * D * math.log(2 * math.pi)
    closed = closed - 0.5 * (loc.square() + variance - variance.log() - 1).sum()
    (wanted,) = torch.autograd.grad(closed, layer.bias)

    torch.manual_seed(0)
    encoding.num_draws = 2000
    found = [torch.autograd.grad(flow.draw_log_probs(x).mean(), layer.bias)[0] for _ in range(30)]
    mean, error = torch.stack(found).mean(0), torch.stack(found).std(0) / math.sqrt(30)
    assert ((mean - wanted).abs() < 4 * error).all()
    assert error.max() < 0.02
    value = flow.draw_log_probs(x)
    assert (value.mean() - closed).abs() < 4 * value.std() / math.sqrt(2000)


def test_a_prior_counts():
    torch.manual_seed(0)
    prior = diffeo.presets.MAF(features=L, layers=2, hidden=(8,)).build().double()
    flow = model(exact(), prior=prior)
    diffeo.testing.points.randomize_(flow.bijection, 0, 0.3)
    plain = model(exact())
    v = flow.encoding.encode(X)[0]  # type: ignore[union-attr]
    change = prior.log_prob(v) - plain.without_encoding().log_prob(v)
    assert change.abs().max() > 0.1
    assert torch.allclose(flow.draw_log_probs(X) - plain.draw_log_probs(X), change)
    assert torch.allclose(flow.to_latent(X), prior.to_latent(v[0]))


def test_evaluation_is_fixed_and_rows_do_not_meet():
    flow = model(rough(), num_draws=3)
    before = torch.get_rng_state()
    first = flow.draw_log_probs(X)
    assert torch.equal(first, flow.draw_log_probs(X))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(flow.draw_log_probs(X[1:])[:, 0], first[:, 1])
    twins = flow.encoding.encode(X[[0, 0, 1]])[0]  # type: ignore[union-attr]
    assert torch.equal(twins[:, 0], twins[:, 1])
    assert not torch.isclose(twins[0], twins[1]).any()
    flow.train()
    assert not torch.isclose(flow.draw_log_probs(X), flow.draw_log_probs(X)).any()


def test_fixed_noise_is_normal():
    torch.manual_seed(0)
    flow = model(ae.diagonal(L, D), num_draws=2)
    nn.init.zeros_(flow.encoding.posterior.base.net.output.weight)  # type: ignore[union-attr]
    z = flow.encoding.encode(torch.randn(20_000, D, dtype=F64))[0]  # type: ignore[union-attr]
    columns = z.movedim(1, 0).flatten(1)  # draws and numbers of one row must not depend on each other
    error = 4.5 / math.sqrt(20_000)
    assert (columns.mean(0).abs() < error).all()
    assert ((columns.var(0) - 1).abs() < 1.5 * error).all()
    assert ((torch.corrcoef(columns.T) - torch.eye(4)).abs() < error).all()


def test_samples_are_of_the_model():
    flow = model(exact())
    drawn = flow.sample(20_000, generator=Generator().manual_seed(0))
    assert torch.equal(drawn, flow.sample(20_000, generator=Generator().manual_seed(0)))
    assert not torch.equal(drawn[:5], flow.sample(5, generator=Generator().manual_seed(1)))
    wanted = W @ W.T + SIGMA**2 * torch.eye(D, dtype=F64)
    assert (drawn.mean(0) - SHIFT).abs().max() < 4 * math.sqrt(2 / 20_000)
    assert (torch.cov(drawn.T) - wanted).abs().max() < 0.1
    z = torch.randn(4, L, dtype=F64)
    assert torch.equal(flow.to_data(z), flow.to_data(z))
    noise = [flow.to_data(t) - LinearGaussian().mean(t) for t in (z, z.flip(0), 1.01 * z)]
    assert not torch.isclose(noise[0], noise[1]).any()
    assert not torch.isclose(noise[0], noise[2]).any()


def test_reconstruction_is_the_decoder_at_the_center():
    flow = model(exact())
    encoding = flow.encoding
    assert isinstance(encoding, ae.VariationalEncoding)
    mean = (X - SHIFT) @ (PRECISION.inverse() @ W.T / SIGMA**2).T
    assert torch.allclose(encoding.reconstruct(X), mean @ W.T + SHIFT, atol=1e-12)


def digits() -> Tensor:
    generator = Generator().manual_seed(0)
    z = torch.randn(400, 1, generator=generator)
    return (torch.rand(400, 8, generator=generator) < torch.sigmoid(3 * z)).to(torch.uint8)


def small(num_draws: int = 1) -> Flow:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(8, 16), nn.SiLU())
    decoder = ae.Bernoulli(MLP(2, 8, hidden=(16,)), (8,), 2)
    return ae.autoencoder(encoder, ae.iaf(2, 16, hidden=(16,)), decoder, num_draws=num_draws)


@pytest.mark.parametrize(("num_draws", "objective"), [(1, None), (4, None), (4, ELBO())])
def test_fit_learns(num_draws, objective):
    x = digits()
    flow = small(num_draws)
    p = x.double().mean(0).clamp(0.01, 0.99)
    independent = -(p * p.log() + (1 - p) * (1 - p).log()).sum().item()
    settings = OptimizerSettings(learning_rate=1e-2, patience=1.0)
    fit(flow, x, objective=objective, max_steps=400, validation=0.2, optimizer=settings)
    found = ae.evidence(flow, x, 50)
    assert -found.log_prob.mean() < independent - 1
    assert -found.elbo.mean() < independent - 0.8
    assert flow.sample(5).dtype == torch.uint8


def test_an_encoder_that_starts_at_zero_is_no_dead_end():
    """Zero means, a zero decoder and a zero encoder together would have no gradient but noise."""
    torch.manual_seed(0)
    decoder = ae.Bernoulli(MLP(2, 8, hidden=(16,)), (8,), 2)
    flow = ae.autoencoder(MLP(8, 16, hidden=(16,)), ae.diagonal(2, 16), decoder)
    fit(flow, digits(), max_steps=600, validation=0, optimizer=OptimizerSettings(learning_rate=5e-3))
    assert ae.evidence(flow, digits(), 50).elbo.mean() > -4.8


def test_a_run_resumes_and_a_model_is_kept(tmp_path):
    path = tmp_path / "run"
    whole, halves = small(), small()
    fit(whole, digits(), max_steps=30, seed=1)

    class Stop:
        def on_progress(self, progress):
            if progress.step == 20:
                raise KeyboardInterrupt

    checkpoint = diffeo.train.Checkpoint(path, every_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        fit(halves, digits(), max_steps=30, seed=1, checkpoint=checkpoint, callbacks=[Stop()])
    halves = small()
    fit(halves, digits(), max_steps=30, seed=1, checkpoint=path)
    x = digits()[:5]
    assert torch.equal(whole.log_prob(x), halves.log_prob(x))

    with pytest.raises(ConfigError, match="built by hand"):
        diffeo.save(whole, tmp_path / "model")
    diffeo.save(whole, tmp_path / "model", weights_only=True)
    back = diffeo.load(tmp_path / "model", into=small())
    assert torch.equal(whole.log_prob(x), back.log_prob(x))


def test_encoder_and_decoder_multiply_in_the_products_dtype():
    seen = []
    flow = small()
    for module in (flow.encoding.encoder[0], flow.encoding.decoder.net.output):  # type: ignore[union-attr, index]
        module.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    with matmul_dtype(torch.bfloat16):
        log_prob = flow.log_prob(digits()[:4])
    assert seen == [torch.bfloat16] * 2
    assert log_prob.dtype == torch.float32


def test_a_flow_for_a_decoder_is_set_from_the_data():
    torch.manual_seed(0)
    decoder = ae.FlowDecoder(diffeo.presets.MAF(features=3, context=2, layers=2, hidden=(8,)).build())
    flow = ae.autoencoder(MLP(3, 8), ae.diagonal(2, 8), decoder)
    flow.initialize(100 + 5 * torch.randn(200, 3))
    assert (flow.sample(200).mean() - 100).abs() < 2


def test_what_does_not_fit_is_refused():
    decoder = ae.Bernoulli(MLP(2, 8), (8,), 2)
    with pytest.raises(
        ShapeError, match=r"draws latent vectors of shape \(3,\) but the decoder takes \(2,\)"
    ):
        ae.autoencoder(MLP(8, 4), ae.diagonal(3, 4), decoder)
    with pytest.raises(ConfigError, match="num_draws must be a whole number from 1"):
        ae.autoencoder(MLP(8, 4), ae.diagonal(2, 4), decoder, num_draws=0)
    with pytest.raises(ShapeError, match="build it with context=H"):
        ae.autoencoder(MLP(8, 4), diffeo.presets.MAF(features=2).build(), decoder)
    mixture = Flow(Inverse(diffeo.bijections.Planar(2)), diffeo.bases.StudentT((2,), 5.0))
    with pytest.raises(ConfigError, match="base is a normal"):
        ae.autoencoder(MLP(8, 4), mixture, decoder)
    prior = diffeo.presets.MAF(features=2, context=1).build()
    with pytest.raises(ConfigError, match="a prior is a flow of latent vectors alone"):
        ae.autoencoder(MLP(8, 4), ae.diagonal(2, 4), decoder, prior)
    flow = ae.autoencoder(MLP(8, 5), ae.diagonal(2, 4), decoder)
    with pytest.raises(ShapeError, match=r"the encoder gives \(5,\) for one data point.*context is \(4,\)"):
        flow.log_prob(torch.zeros(3, 8))
    with pytest.raises(DataError, match="NaN"):
        flow.to_data(torch.full((1, 2), math.nan))
    with pytest.raises(ConfigError, match="evidence is of autoencoders"):
        ae.evidence(diffeo.presets.MAF(features=2).build(), torch.zeros(1, 2))
    with pytest.raises(ShapeError, match=r"this needs \(rows, 8\)"):
        ae.evidence(small(), torch.zeros(8))
