"""``VariationalEncoding``: data as latent vectors drawn from a posterior, for autoencoders built as flows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from diffeo.autoencoders.decoders import Decoder
from diffeo.bases import Normal
from diffeo.bases.normal import DiagonalNormal
from diffeo.bijections import Permute
from diffeo.contracts import Initializable
from diffeo.encodings.base import Encoding, MonteCarloEncoding, check_whole
from diffeo.encodings.noise import hashed_uniform
from diffeo.errors import ConfigError, DataError, FormatError, ShapeError
from diffeo.flow import Flow, device_of, in_parts
from diffeo.functional import matmul_precision, seeding

_AT_A_TIME = 8192
"""Draws times rows that an evaluation of the evidence works on together."""


class VariationalEncoding(MonteCarloEncoding, Initializable):
    """Takes data to latent vectors drawn from an amortized posterior, and back by a decoder.

    Behind it stands a flow of the latent vectors, the prior. The two together are a variational autoencoder,
    and its log-likelihood is the lower bound

        log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x),  z_k drawn from q(z | x),

    the evidence lower bound for K = 1 and the importance-weighted bound for more, tighter the more there
    are. Gradients are those of the reparameterized draws.

    Training draws from torch's default generator. Evaluation uses K fixed draws that depend on the data point
    alone: not on its batch, and different for different points, so that a mean over a test set is a mean over
    the posteriors too. Unlike other encodings it uses K draws in training also. ``num_draws`` may be changed
    at any time. ``decode`` draws from the decoder, with noise that depends on the latent vectors alone.

    Args:
        encoder: any module from ``(rows, *event_shape)``, the data as ``decoder.seen`` gives them, to
            ``(rows, H)``: the posterior's context. Nets of ``diffeo.nets`` end in a layer that starts at
            zero; an encoder learns sooner when it ends in one of ``torch.nn`` as it comes.
        posterior: a flow of latent vectors, of context shape ``(H,)`` and with a normal base: ``diagonal``,
            ``planar``, ``sylvester``, ``iaf``, or another whose sampling is cheap.
        decoder: ``Bernoulli``, ``DiscretizedLogistic``, ``FlowDecoder``.
        num_draws: K, 1 to 65536.

    Shape:
        data ``(*batch, *event_shape)``; encoded ``(K, *batch, L)``.

    Raises:
        ShapeError: when the parts do not fit each other.
        ConfigError: for a posterior without a normal base, or with an encoding.
        DataError: by ``decode``, for NaN.

    References: Kingma and Welling 2014, eq. 7; Rezende and Mohamed 2015, eq. 15; Burda, Grosse and
    Salakhutdinov 2016, eq. 8; Nielsen et al. 2020 (SurVAE flows), section 2, for the encoder as a layer.

    Example:
        >>> import torch
        >>> from diffeo.autoencoders import Bernoulli, diagonal
        >>> decoder = Bernoulli(torch.nn.Linear(2, 6), (6,), 2)
        >>> encoding = VariationalEncoding(torch.nn.Linear(6, 8), diagonal(2, 8), decoder, num_draws=3)
        >>> z, log_weight = encoding.encode(torch.ones(5, 6))
        >>> z.shape, log_weight.shape
        (torch.Size([3, 5, 2]), torch.Size([3, 5]))
    """

    max_draws = 65536

    def __init__(self, encoder: nn.Module, posterior: Flow, decoder: Decoder, *, num_draws: int = 1):
        super().__init__()
        if posterior.encoding is not None or not isinstance(posterior.base, DiagonalNormal):
            raise ConfigError(
                "a posterior is a flow without an encoding whose base is a normal, so that fixed noise gives "
                "fixed draws; use diagonal, planar, sylvester or iaf, or a flow of that kind."
            )
        if posterior.context_shape is None or len(posterior.context_shape) != 1:
            raise ShapeError("a posterior's context is the encoder's vector; build it with context=H.")
        if posterior.event_shape != (decoder.features,):
            raise ShapeError(
                f"the posterior draws latent vectors of shape {tuple(posterior.event_shape)} but the decoder "
                f"takes ({decoder.features},); give both the same number of features."
            )
        self.encoder, self.posterior, self.decoder = encoder, posterior, decoder
        self.event_shape, self.latent_shape = decoder.event_shape, posterior.event_shape
        self.num_draws = num_draws

    @property
    def data_dtype(self) -> torch.dtype:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.decoder.data_dtype

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch = x.shape[: x.dim() - len(self.event_shape)]
        features = self.latent_shape.numel()
        context = self.context(x)
        if self.training:
            noise = torch.randn(
                (self.num_draws, *batch, features), dtype=context.dtype, device=context.device
            )
        else:
            uniform = hashed_uniform(_bits(x, batch), self.num_draws, context.dtype, (1, 1, features))
            noise = torch.special.ndtri(uniform).reshape(self.num_draws, *batch, features)
        return self.weigh(x, *self.place(noise, context))

    def context(self, x: Tensor) -> Tensor:
        """What the encoder makes of the data, ``(*batch, H)``."""
        batch = x.shape[: x.dim() - len(self.event_shape)]
        wanted = self.posterior.context_shape
        assert wanted is not None
        dtype = next((p.dtype for p in self.posterior.parameters()), torch.get_default_dtype())
        seen = self.decoder.seen(x).to(dtype)
        context = matmul_precision.run_net_alone(self.encoder, seen.reshape(-1, *self.event_shape))
        if context.shape[1:] != wanted:
            raise ShapeError(
                f"the encoder gives {tuple(context.shape[1:])} for one data point, but the posterior's "
                f"context is {tuple(wanted)}; let it end in a layer of that size."
            )
        return context.reshape(*batch, *wanted)

    def place(self, noise: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Standard normal numbers ``(K, *batch, L)`` to latent vectors, and ``log q(z | x)``, in one pass."""
        q = self.posterior
        if q.context_encoding is not None:
            context = q.context_encoding(context)
        assert isinstance(q.base, DiagonalNormal)
        loc, log_scale = q.base.loc_and_log_scale(context)
        start = loc + log_scale.exp() * noise
        # the base's density in the noise itself: exact, where (start - loc) / scale would cancel
        log_q = -(0.5 * noise.square() + log_scale).sum(-1) - 0.5 * math.log(2 * math.pi) * noise.shape[-1]
        z, log_det = q.bijection.inverse(start, context.expand(*noise.shape[:-1], context.shape[-1]))
        return z, log_q - log_det

    def weigh(self, x: Tensor, z: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        """Latent vectors and what is added to their log prior: ``log p(x | z) - log q(z | x)``."""
        return z, self.decoder.log_prob(x, z) - log_q

    def decode(self, v: Tensor) -> Tensor:
        if bool(v.isnan().any()):
            raise DataError("latent vectors that are NaN have no data; look where they come from.")
        return self.decoder.sample(v, generator=_generator(v))

    def reconstruct(self, x: Tensor) -> Tensor:
        """The decoder's mean at the center of each point's posterior, of the data's shape; no gradients."""
        with torch.no_grad():
            context = self.context(x)
            z = self.place(context.new_zeros(*context.shape[:-1], *self.latent_shape), context)[0]
            return self.decoder.mean(z, generator=_generator(z))

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set the decoder, if it is a flow, from data and draws of their latent vectors."""
        if not isinstance(self.decoder, Initializable):
            return
        given = self.context(x)
        noise = torch.randn((*given.shape[:-1], *self.latent_shape), dtype=given.dtype, device=given.device)
        self.decoder.initialize(x, self.place(noise, given)[0])

    def to_json(self) -> dict[str, Any]:
        return {
            "event_shape": list(self.event_shape),
            "features": self.latent_shape[0],
            "draws": self.num_draws,
        }

    @classmethod
    def from_json(cls, spec: dict[str, Any]) -> Encoding:
        raise FormatError("an autoencoder's nets are its maker's; build it and use load(path, into=flow).")

    def extra_repr(self) -> str:
        return f"num_draws={self.num_draws}"


def autoencoder(
    encoder: nn.Module, posterior: Flow, decoder: Decoder, prior: Flow | None = None, *, num_draws: int = 1
) -> Flow:
    """A variational autoencoder: a flow of the latent vectors behind a ``VariationalEncoding``.

    It is a flow like any other: ``log_prob`` is the bound, ``draw_log_probs`` gives it draw by draw, ``fit``
    trains it, ``sample`` draws data, ``to_latent`` and ``to_data`` go to the prior's latent space and back.

    Args:
        encoder: from data to the posterior's context.
        posterior: ``q(z | x)``.
        decoder: ``p(x | z)``.
        prior: ``p(z)``, any flow of vectors; None for the standard normal.
        num_draws: K of the bound.

    Raises:
        ShapeError: when the parts do not fit each other.
        ConfigError: for a prior with an encoding or a context.

    Example:
        >>> import torch
        >>> from diffeo.autoencoders import Bernoulli, iaf
        >>> decoder = Bernoulli(torch.nn.Linear(2, 6), (6,), 2)
        >>> model = autoencoder(torch.nn.Linear(6, 8), iaf(2, 8), decoder)
        >>> model.log_prob(torch.ones(5, 6)).shape, model.sample(3).shape
        (torch.Size([5]), torch.Size([3, 6]))
    """
    encoding = VariationalEncoding(encoder, posterior, decoder, num_draws=num_draws)
    if prior is None:
        features = decoder.features
        return Flow(Permute(range(features)), Normal((features,)), encoding)
    if prior.encoding is not None or prior.context_shape is not None:
        raise ConfigError(
            "a prior is a flow of latent vectors alone: without an encoding, without a context."
        )
    return Flow(prior.bijection, prior.base, encoding)


@dataclass(frozen=True)
class Evidence:
    """What importance sampling from the posteriors says of ``log p(x)``, row by row.

    Args:
        log_weights: ``log p(x, z_k) - log q(z_k | x)``, ``(K, rows)``.
    """

    log_weights: Tensor

    @property
    def elbo(self) -> Tensor:
        """The evidence lower bound: the log-weights' mean."""
        return self.log_weights.mean(0)

    @property
    def log_prob(self) -> Tensor:
        """The log of the weights' mean: a lower bound on average, near ``log p(x)`` with many draws."""
        return self.log_weights.logsumexp(0) - math.log(len(self.log_weights))

    @property
    def error(self) -> Tensor:
        """The standard error of ``log_prob``, by the delta method; too small where posteriors miss a part.

        Infinite for a single draw, and where no draw has any weight.
        """
        if len(self.log_weights) < 2:
            return torch.full_like(self.log_weights[0], math.inf)
        share = torch.softmax(self.log_weights, 0) * len(self.log_weights)
        return (share.std(0) / math.sqrt(len(share))).nan_to_num(math.inf)

    @property
    def ess(self) -> Tensor:
        """The effective part of the draws, in (0, 1]; 0 where none has any weight."""
        share = torch.softmax(self.log_weights, 0)
        return (1 / (len(share) * share.square().sum(0))).nan_to_num(0.0)


def evidence(flow: Flow, x: Tensor, num_draws: int = 64, *, generator: Generator | None = None) -> Evidence:
    """Estimate ``log p(x)`` of an autoencoder by many draws from its posteriors, in evaluation mode.

    Args:
        flow: as ``autoencoder`` makes them.
        x: data, ``(rows, *event_shape)``.
        num_draws: K, at least 1; the papers take 5000.
        generator: of the noise; by default one of a fixed seed, so that the answer is always the same.

    Raises:
        ConfigError: for a flow without latent variables.
        ShapeError: for data the flow does not take.

    Example:
        >>> import torch
        >>> from diffeo.autoencoders import Bernoulli, autoencoder, diagonal
        >>> decoder = Bernoulli(torch.nn.Linear(2, 6), (6,), 2)
        >>> model = autoencoder(torch.nn.Linear(6, 8), diagonal(2, 8), decoder)
        >>> found = evidence(model, torch.ones(5, 6), num_draws=100)
        >>> found.log_prob.shape, bool((found.elbo <= found.log_prob + 1e-6).all())
        (torch.Size([5]), True)
    """
    encoding = flow.encoding
    if not isinstance(encoding, VariationalEncoding):
        raise ConfigError("evidence is of autoencoders: of flows behind a VariationalEncoding.")
    check_whole("num_draws", num_draws, 1, 2**31)
    if x.dim() != 1 + len(flow.event_shape) or x.shape[1:] != flow.event_shape:
        raise ShapeError(
            f"x has shape {tuple(x.shape)}; this needs (rows, {', '.join(map(str, flow.event_shape))})."
        )
    draws = seeding.generator(0, device_of(flow)) if generator is None else generator
    prior = flow.without_encoding()

    def log_weights(part: Tensor) -> Tensor:
        context, columns = encoding.context(part), []
        for start in range(0, num_draws, most := max(1, _AT_A_TIME // max(1, len(part)))):
            shape = (min(most, num_draws - start), len(part), *encoding.latent_shape)
            noise = torch.randn(shape, generator=draws, dtype=context.dtype, device=context.device)
            z, log_weight = encoding.weigh(part, *encoding.place(noise, context))
            columns.append(log_weight + prior.log_prob(z))
        return torch.cat(columns).T

    return Evidence(in_parts(flow, log_weights, x, batch_size=_AT_A_TIME).T)


def _bits(x: Tensor, batch: torch.Size) -> Tensor:
    """Whole numbers that tell data points apart, ``(*batch, 1, 1, n)``."""
    flat = x.reshape(*batch, 1, 1, -1)
    return flat.to(torch.float32).view(torch.int32).long() if x.is_floating_point() else flat.long()


def _generator(z: Tensor) -> Generator:
    """Noise of its own for every set of latent vectors, and the same for the same."""
    bits = z.detach().double().reshape(-1).view(torch.int64)
    places = torch.arange(1, 2 * len(bits), 2, device=z.device) * 0x9E3779B97F4A7C1
    return Generator(z.device).manual_seed(int((bits * places).sum()) & (2**63 - 1))
