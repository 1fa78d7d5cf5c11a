"""Trained weights carried over: the same numbers in theirs and in ours give the same density.

What has to change on the way is what docs/migrating.md says: order of layers, layout and scale of parameters.
Each library's ``port`` does it, in ``peers/libraries``.
"""

from __future__ import annotations

import pytest
import torch
from peers.libraries import ENTRIES
from peers.libraries.nflows import UNIT_SLOPE
from peers.libraries.on_torch import stir
from peers.spec import BINS, BOUND, Spec

from diffeo import Flow, bases
from diffeo.bijections import Chain
from diffeo.elementwise import RationalQuadratic

FEATURES, HIDDEN = 4, 16
X = 1.5 * torch.randn(200, FEATURES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(autouse=True)
def float64():
    """Weights keep their digits on the way."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "library, model, strength",
    [
        ("zuko", "RealNVP", 0.3),
        ("nflows", "CouplingNSF", 0.3),
        ("normflows", "RealNVP", 0.1),  # scales beyond 1000 cannot be carried over
        ("normflows", "CouplingNSF", 0.3),
    ],
)
def test_a_flow_is_carried_over(library, model, strength):
    adapter = ENTRIES[library].adapter
    theirs = adapter.build(Spec(model, FEATURES, layers=3, hidden=(HIDDEN, HIDDEN), usual=True))
    stir(theirs.module, strength)
    density = theirs.log_prob(X)
    assert density.std() > 0.5
    ours = Flow(Chain(adapter.port(theirs.module)), bases.Normal((FEATURES,)))
    torch.testing.assert_close(ours.log_prob(X), density, rtol=0, atol=1e-5)


def test_zukos_splines():
    """The same knots and slopes; the logits differ, since zuko bounds them and diffeo bounds the bins."""
    import zuko

    logits = torch.randn(FEATURES, 3 * BINS - 1)
    theirs = zuko.transforms.MonotonicRQSTransform(*logits.split([BINS, BINS, BINS - 1], -1), bound=BOUND)
    shares = [knots.diff(dim=-1) / (2 * BOUND) for knots in (theirs.horizontal, theirs.vertical)]
    # diffeo gives every bin 1/1000 of the box and shares the rest
    bins = [((share - 1e-3) / (1 - BINS * 1e-3)).log() for share in shares]
    slopes = torch.log(torch.expm1(theirs.derivatives[..., 1:-1] - 1e-3)) - UNIT_SLOPE
    params = torch.cat([*bins, slopes], -1).expand(len(X), -1, -1)
    y, log_slope = RationalQuadratic(BINS, BOUND).forward(X, params)
    torch.testing.assert_close(y, theirs(X), rtol=0, atol=1e-5)
    torch.testing.assert_close(log_slope, theirs.log_abs_det_jacobian(X, y), rtol=0, atol=1e-5)
