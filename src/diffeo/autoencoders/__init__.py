"""Variational autoencoders, whose posteriors, priors and decoders may be flows.

An autoencoder is a flow behind an encoding that draws. K draws with weights are what dequantization already
needs, so bound, training, checkpoints and sampling are those of ``Flow``; a model class of its own would
have had to repeat them all. It cannot have a context, nor a file that rebuilds it, since encoder and decoder
are the user's nets.
"""

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
