"""The table of docs/conventions.md, held against the libraries on PyTorch.

In every test x is data, z latent, and the flow divides data by ``SCALES``: ``x = SCALES z``. The log-det of
data to latent is then ``DOWN``, that of latent to data ``-DOWN``, and the density is known.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform

PAGE = Path(__file__).parents[2] / "docs" / "conventions.md"
SCALES = torch.tensor([2.0, 3.0])
DOWN = -math.log(6.0)
Z = torch.tensor([[0.5, -1.0], [0.0, 2.0], [1.5, 0.3]])
X = SCALES * Z
DENSITY = -0.5 * Z.square().sum(-1) - math.log(2 * math.pi) + DOWN


def same(found: Tensor, wanted: Tensor | float) -> None:
    """Equal values and equal shapes; a number stands for one of each row."""
    wanted = torch.full((len(X),), wanted) if isinstance(wanted, float) else wanted
    torch.testing.assert_close(found.detach(), wanted, rtol=0, atol=1e-5)


def row(library: str) -> str:
    """The library's row of the table."""
    found = re.findall(rf"^\| \**`?{re.escape(library)}`?\** \|.*$", PAGE.read_text(encoding="utf-8"), re.M)
    assert len(found) == 1, f"{len(found)} rows of {library} in {PAGE.name}"
    return found[0]


def says(library: str, *phrases: str) -> None:
    missing = [phrase for phrase in phrases if phrase not in row(library)]
    assert not missing, f"the row of {library} does not say {missing}"


def test_diffeo():
    from diffeo import Flow, bases
    from diffeo.bijections import Standardize

    says("diffeo", "data → latent", "of the map just applied")
    layer = Standardize((2,))
    layer.initialize(torch.stack([-SCALES, SCALES]))  # mean 0, standard deviation SCALES
    z, log_det = layer(X)
    same(z, Z)
    same(log_det, DOWN)
    x, log_det = layer.inverse(Z)
    same(x, X)
    same(log_det, -DOWN)
    same(Flow(layer, bases.Normal((2,))).log_prob(X), DENSITY)


def test_torch_distributions():
    says("torch.distributions", "latent → data", "change the sign", "not summed beyond")
    up = AffineTransform(0.0, SCALES)
    same(up(Z), X)
    same(up.inv(X), Z)
    same(up.log_abs_det_jacobian(Z, X), SCALES.log().expand_as(X))  # a number for every column
    same(AffineTransform(0.0, SCALES, event_dim=1).log_abs_det_jacobian(Z, X), -DOWN)
    base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    same(TransformedDistribution(base, [up]).log_prob(X), DENSITY)


def test_pyro():
    import pyro.distributions as dist
    from pyro.distributions.transforms import AffineCoupling

    says("Pyro", "latent → data", "change the sign")
    up = AffineCoupling(1, Fixed([torch.zeros(1), SCALES[1:].log()]))  # column 0 stays
    x = Z * torch.tensor([1.0, 3.0])
    same(up(Z), x)
    same(up.log_abs_det_jacobian(Z, x), math.log(3.0))  # summed: of the event
    base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    wanted = -0.5 * Z.square().sum(-1) - math.log(2 * math.pi) - math.log(3.0)
    same(dist.TransformedDistribution(base, [up]).log_prob(x), wanted)


def test_nflows():
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms import PointwiseAffineTransform

    says("nflows", "data → latent", "of the map just applied", "as it is")
    down = PointwiseAffineTransform(0.0, 1 / SCALES)
    z, log_det = down(X)
    same(z, Z)
    same(log_det, DOWN)
    x, log_det = down.inverse(Z)
    same(x, X)
    same(log_det, -DOWN)
    same(Flow(down, StandardNormal([2])).log_prob(X), DENSITY)


def test_zuko():
    import zuko

    says("zuko", "data → latent", "as it is")
    down = zuko.transforms.MonotonicAffineTransform(torch.zeros(2), _unclipped(-SCALES.log()))
    same(down(X), Z)
    same(down.log_abs_det_jacobian(X, Z), -SCALES.log().expand_as(X))  # a number for every column
    whole = zuko.transforms.DependentTransform(down, 1)
    same(whole.log_abs_det_jacobian(X, Z), DOWN)
    same(whole.inv(Z), X)
    base = zuko.distributions.DiagNormal(torch.zeros(2), torch.ones(2))
    same(zuko.distributions.NormalizingFlow(whole, base).log_prob(X), DENSITY)
    lazy = zuko.flows.MAF(2, transforms=2, hidden_features=(8,))()  # the flows run the same way
    z, log_det = lazy.transform.call_and_ladj(X)
    torch.testing.assert_close(lazy.log_prob(X), lazy.base.log_prob(z) + log_det)


def _unclipped(log_scale: Tensor) -> Tensor:
    return log_scale / (1 - log_scale.abs() / math.log(1e3))


def test_normflows():
    import normflows as nf

    says("normflows", "latent → data", "of the map just applied", "change the sign")
    up = nf.flows.AffineConstFlow(2)
    with torch.no_grad():
        up.s.copy_(SCALES.log()[None])
    x, log_det = up(Z)
    same(x, X)
    assert log_det.shape == ()  # of a layer without data in its log-det, one number for all rows
    assert log_det.item() == pytest.approx(-DOWN)
    z, log_det = up.inverse(X)
    same(z, Z)
    assert log_det.item() == pytest.approx(DOWN)
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(2, trainable=False), [up])
    same(model(Z), X)
    same(model.forward_and_log_det(Z)[1], -DOWN)
    same(model.inverse_and_log_det(X)[1], DOWN)
    same(model.log_prob(X), DENSITY)


def test_normflows_lists_its_layers_from_the_latent():
    import normflows as nf

    says("normflows", "listed from latent to data")
    scale, move = nf.flows.AffineConstFlow(2, shift=False), nf.flows.AffineConstFlow(2, scale=False)
    with torch.no_grad():
        scale.s.copy_(SCALES.log()[None])
        move.t.fill_(1.0)
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(2, trainable=False), [scale, move])
    same(model(Z), X + 1)


def test_freia():
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import ActNorm

    says("FrEIA", "the map just applied", "as it is", "rev=True")
    net = SequenceINN(2)
    net.append(ActNorm)
    net[0].init_on_next_batch = False
    with torch.no_grad():
        net[0].scale.copy_(-SCALES.log()[None])
    z, log_det = net(X)
    same(z, Z)
    same(log_det, DOWN)
    x, log_det = net(Z, rev=True)
    same(x, X)
    same(log_det, -DOWN)


class Fixed(nn.Module):
    """A net that gives the same for every row."""

    def __init__(self, values: list[Tensor]):
        super().__init__()
        self.values = values

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(v.expand(*x.shape[:-1], -1) for v in self.values)
