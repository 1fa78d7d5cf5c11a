"""FlowJAX's row of docs/conventions.md, held against FlowJAX.

As in test_conventions.py, ``x = SCALES z`` with x the data.
"""

from __future__ import annotations

import re
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from flowjax.bijections import Affine, Chain, RationalQuadraticSpline
from flowjax.distributions import Normal, Transformed
from flowjax.flows import coupling_flow
from paramax import unwrap

PAGE = Path(__file__).parents[2] / "docs" / "conventions.md"
SCALES = jnp.array([2.0, 3.0])
UP = float(np.log(6.0))
Z = jnp.array([0.5, -1.0])
X = SCALES * Z


def same(found, wanted) -> None:
    assert np.shape(found) == np.shape(wanted)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_the_row_says_so():
    (row,) = re.findall(r"^\| FlowJAX \|.*$", PAGE.read_text(encoding="utf-8"), re.M)
    for phrase in ("latent → data", "of the map just applied", "`inverse_and_log_det(x)`"):
        assert phrase in row


def test_direction_sign_and_sum():
    up = Affine(jnp.zeros(2), SCALES)
    x, log_det = up.transform_and_log_det(Z)
    same(x, X)
    same(log_det, UP)
    z, log_det = up.inverse_and_log_det(X)
    same(z, Z)
    same(log_det, -UP)
    density = -0.5 * (Z**2).sum() - np.log(2 * np.pi) - UP
    same(Transformed(Normal(jnp.zeros(2)), up).log_prob(X), density)


def test_a_chain_is_listed_from_the_latent():
    chain = Chain([Affine(jnp.zeros(2), SCALES), Affine(jnp.ones(2))])
    same(chain.transform(Z), X + 1)


def test_flows_add_the_inverses_log_det():
    flow = coupling_flow(jr.key(0), base_dist=Normal(jnp.zeros(2)), flow_layers=2)
    z, log_det = flow.bijection.inverse_and_log_det(X)
    same(flow.log_prob(X), flow.base_dist.log_prob(z) + log_det)


@pytest.mark.parametrize("inner", [3, 7])
def test_knots_are_inner_ones(inner):
    """docs/migrating.md: ``knots=K - 1`` for K bins."""
    spline = unwrap(RationalQuadraticSpline(knots=inner, interval=3))
    assert spline.x_pos.shape == (inner + 2,)
