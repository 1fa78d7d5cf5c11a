"""The evidence lower bound."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffeo.flow import Flow
from diffeo.objectives.base import Batch, weighted_mean


@dataclass(frozen=True)
class ELBO:
    """The evidence lower bound: minus the *mean* of the log-likelihoods at an encoding's K draws.

    In nats a row. For autoencoders and dequantized data, both of whose encodings draw. ``Likelihood`` takes
    the log of the draws' mean likelihood instead, the importance-weighted bound, which is tighter. For K = 1
    the two are equal; for more, this one's gradient is less noisy, and it goes on asking that every draw be a
    likely one where the other is content with one good one of K.

    References: Kingma and Welling 2014, eq. 7; Burda, Grosse and Salakhutdinov 2016, eqs. 4 and 8; Rainforth
    et al. 2018, "Tighter variational bounds are not necessarily better".

    Example:
        >>> import torch, diffeo
        >>> from diffeo import autoencoders as ae
        >>> decoder = ae.Bernoulli(torch.nn.Linear(2, 6), (6,), 2)
        >>> model = ae.autoencoder(torch.nn.Linear(6, 8), ae.diagonal(2, 8), decoder, num_draws=8)
        >>> batch = Batch(torch.ones(3, 6), None, None, torch.arange(3))
        >>> bool(ELBO()(model.eval(), batch) > diffeo.Likelihood()(model, batch))
        True
    """

    def __call__(self, flow: Flow, batch: Batch) -> Tensor:
        return weighted_mean(-flow.draw_log_probs(batch.x, batch.context).mean(0), batch.weights)
