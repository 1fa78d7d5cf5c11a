"""Variational autoencoders, whose posteriors, priors and decoders may be flows."""

from diffeo.autoencoders.decoders import Bernoulli, Decoder, DiscretizedLogistic, FlowDecoder
from diffeo.autoencoders.encoding import Evidence, VariationalEncoding, autoencoder, evidence
from diffeo.autoencoders.posteriors import diagonal, iaf, planar, posterior, sylvester

__all__ = [
    "Bernoulli",
    "Decoder",
    "DiscretizedLogistic",
    "Evidence",
    "FlowDecoder",
    "VariationalEncoding",
    "autoencoder",
    "diagonal",
    "evidence",
    "iaf",
    "planar",
    "posterior",
    "sylvester",
]
