"""Defects that other libraries ship under green tests; none of them may come back here."""

from __future__ import annotations

import inspect
import math
import os
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from cases import VECTORS
from torch import Tensor
from torch.distributions import constraints

import diffeo
from diffeo import Flow
from diffeo.bases import Normal, Uniform
from diffeo.bijections import LU, ActNorm, Autoregressive, Chain, Coupling, Inverse, Permute, Pointwise
from diffeo.elementwise import (
    Additive,
    Affine,
    CircularRationalQuadratic,
    IntervalRationalQuadratic,
    PiecewiseLinear,
    PiecewiseQuadratic,
    RationalQuadratic,
)
from diffeo.functional.domains import bounds
from diffeo.nets import MADE, MLP, ResMADE
from diffeo.objectives import Batch, Likelihood
from diffeo.presets import MAF, NSF, RealNVP
from diffeo.testing import randomize_
from diffeo.testing.density import require_integral
from diffeo.testing.points import generator

SPLINES = [
    RationalQuadratic(),
    IntervalRationalQuadratic(low=-3.0, high=3.0),
    CircularRationalQuadratic(),
    PiecewiseLinear(low=-3.0, high=3.0),
    PiecewiseQuadratic(),
]
FAMILIES = [Additive(), Affine(), *SPLINES, IntervalRationalQuadratic()]
LINE = [family for family in FAMILIES if family.domain is constraints.real]
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: type(f).__name__)
splines = pytest.mark.parametrize("family", SPLINES, ids=lambda f: type(f).__name__)


def small(name: str, features: int = 3, context: int | None = None) -> Flow:
    hidden = (8,) if isinstance(VECTORS[name](1).hidden, tuple) else 8  # type: ignore[attr-defined]
    flow = VECTORS[name](features, context, layers=2, hidden=hidden).build()
    return randomize_(flow, scale=0.2).double().eval()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


# -- nflows, normflows, torchflows --------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_log_det_is_that_of_the_autograd_jacobian(name: str):
    """nflows, normflows, torchflows: no test compares a log-det with the Jacobian of the map."""
    flow = small(name)
    for x in normal(4, 3):
        for side in (flow.bijection, flow.bijection.inverse):
            jacobian = torch.autograd.functional.jacobian(lambda t: side(t)[0], x)
            torch.testing.assert_close(side(x)[1], torch.linalg.slogdet(jacobian)[1])


@splines
def test_float32_spline_survives_stress(family):
    """nflows, pyro, zuko: the float32 inverse of a spline under large logits asserts, or errs by 1.4."""
    g = generator(0)
    params = torch.randint(0, 2, (200, family.num_params), generator=g) * 20.0 - 10.0
    x = torch.linspace(-2.999, 2.999, 101).expand(200, 101)
    params = params.unsqueeze(1).expand(200, 101, -1)
    y, log_slope = family.forward(x, params)
    back, _ = family.inverse(y, params)
    eps = torch.finfo(torch.float32).eps
    assert ((back - x).abs() <= 64 * eps * family.scale * (1 + (-log_slope).exp())).all()


# -- zuko ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", LINE, ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("far", [-1e4, -40.0, 40.0, 1e4])
def test_inverse_reaches_any_distance(family, far: float):
    """zuko: inverses by bisection on [-10, 10] answer 10 for f(40), without a word."""
    params = normal(20, family.num_params)
    x = torch.full((20,), far, dtype=torch.float64)
    torch.testing.assert_close(family.inverse(family.forward(x, params)[0], params)[0], x)


@families
def test_one_dimensional_flows_integrate_to_one(family):
    """zuko: several one-dimensional flows integrate to between 0.6 and 0.99."""
    low, high = bounds(family.codomain)
    base = Normal((1,)) if low == -math.inf else Uniform((1,), float(low), float(high))
    flow = randomize_(Flow(Pointwise(family, (1,)), base), scale=1.0).double()
    require_integral(flow.log_prob, flow.sample(5000, generator=generator(0)), family.domain)


def test_circular_flow_has_no_density_outside_the_circle():
    """zuko: a circular flow has a finite density outside [-pi, pi]."""
    family = CircularRationalQuadratic()
    net = ResMADE(2, family.num_params, 16)
    flow = randomize_(Flow(Autoregressive(net, family), Uniform((2,), -math.pi, math.pi)))
    log_prob = flow.log_prob(torch.tensor([[0.0, 1.0], [4.0, 1.0], [0.0, -3.2], [1e30, math.inf]]))
    assert log_prob[0].isfinite()
    assert log_prob[1:].tolist() == [-math.inf] * 3


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_eval_keeps_parameter_gradients(name: str):
    """zuko: after eval() the log-density has no gradient in the parameters."""
    flow = small(name)
    flow.log_prob(normal(5, 3)).sum().backward()
    assert all(p.grad is not None for p in flow.parameters())


def test_import_leaves_torch_alone():
    """zuko: importing it changes torch.distributions for everybody."""
    code = """
import torch, torch.distributions as d
from torch.distributions import constraints as c, transforms as t, kl

def state():
    modules = [torch, d, c, t, kl, torch.nn, torch.nn.functional]
    classes = [v for m in (d, c, t) for v in vars(m).values() if isinstance(v, type)]
    spaces = [dict(vars(m)) for m in modules + classes]
    return [*spaces, dict(kl._KL_REGISTRY)], (torch.get_default_dtype(), torch.get_rng_state().tolist())

spaces, settings = state()
for name in ("bijections", "elementwise", "bases", "nets", "presets", "train", "testing", "io"):
    __import__(f"diffeo.{name}")
spaces_after, settings_after = state()
plain = (int, float, str, dict)
changed = [
    key
    for before, after in zip(spaces, spaces_after)
    for key in before
    if before[key] is not after.get(key) and not isinstance(before[key], plain)
]
print(changed, settings == settings_after, len(spaces[-1]) == len(spaces_after[-1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[] True True"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(diffeo.__file__).parents[1])}


# -- torchflows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_log_prob_of_samples_has_the_right_sign(name: str):
    """torchflows: the log-density that comes with a sample has the wrong sign of the log-det."""
    flow = small(name, context=2)
    context = normal(4, 2)
    x, log_prob = flow.sample_and_log_prob(7, context, generator=generator(1))
    torch.testing.assert_close(log_prob, flow.log_prob(x, context), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_every_preset_honors_its_context(name: str):
    """torchflows: two families ignore the context; normflows: coupling layers take none."""
    flow = small(name, context=2)
    context = normal(5, 2).requires_grad_()
    log_prob = flow.log_prob(normal(1, 3), context)
    assert log_prob.unique().numel() == 5
    (slope,) = torch.autograd.grad(log_prob.sum(), context)
    assert (slope.abs().sum(0) > 0).all()


def test_act_norm_keeps_its_values_after_loading():
    """torchflows: ActNorm initializes itself anew from the first batch after loading."""
    first, second = ActNorm((2,)), ActNorm((2,))
    first.initialize(3 + 2 * torch.randn(50, 2))
    second.load_state_dict(first.state_dict())
    second.initialize(torch.randn(50, 2))
    second.train()(torch.randn(50, 2))
    assert torch.equal(first.loc, second.loc)
    assert torch.equal(first.log_scale, second.log_scale)


# -- normflows ----------------------------------------------------------------------------------------


def test_float64_losses_stay_float64():
    """normflows: float64 losses become float32."""
    flow = small("NSF")
    loss = Likelihood()(flow, Batch(normal(5, 3), None, None, torch.arange(5)))
    assert loss.dtype == torch.float64


def test_training_leaves_frozen_parameters_frozen():
    """normflows: computing a loss unfreezes frozen parameters."""
    flow = MAF(2, layers=2, hidden=(8,)).build()
    frozen = list(flow.bijection.parts[1].parameters())  # type: ignore[attr-defined]
    before = [p.clone() for p in frozen]
    for p in frozen:
        p.requires_grad_(False)
    diffeo.fit(flow, torch.randn(64, 2), max_steps=3)
    assert not any(p.requires_grad for p in frozen)
    assert all(torch.equal(a, b) for a, b in zip(frozen, before, strict=True))


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_the_callers_data_stay_as_they_are(name: str):
    """normflows: a shift is added to the caller's own tensor."""
    flow, x, context = small(name, context=2), normal(5, 3), normal(5, 2)
    kept = x.clone(), context.clone()
    flow.initialize(x, context)
    flow.log_prob(x, context)
    flow.to_data(flow.to_latent(x, context), context)
    flow.sample(2, context)
    assert torch.equal(x, kept[0])
    assert torch.equal(context, kept[1])


def test_columns_outside_the_box_keep_their_values():
    """normflows: splines with some circular columns map out-of-bound columns to 0."""
    layer = randomize_(Pointwise(RationalQuadratic(bound=3.0), (3,))).double()
    x = torch.tensor([[5.0, 0.5, -70.0]], dtype=torch.float64)
    y, log_det = layer(x)
    assert y[0, [0, 2]].tolist() == [5.0, -70.0]
    torch.testing.assert_close(layer.inverse(y)[0], x)
    assert log_det.isfinite().all()


# -- residual flows, FrEIA ----------------------------------------------------------------------------


def test_evaluation_is_deterministic_in_spite_of_dropout():
    """Residual flows: the log-density of an evaluated point changes from call to call."""
    flow = randomize_(NSF(3, layers=2, hidden=16, dropout=0.5).build()).eval()
    x = torch.randn(5, 3)
    assert torch.equal(flow.log_prob(x), flow.log_prob(x))


def test_a_chain_keeps_every_log_det():
    """FrEIA: a composed net's log-det is dropped from the density of what it pushes forward."""
    chain = randomize_(
        Chain([LU(2), Inverse(Chain([LU(2), Permute([1, 0])])), Pointwise(Affine(), (2,))])
    ).double()
    flow, x = Flow(chain, Normal((2,))).double(), normal(2)
    jacobian = torch.autograd.functional.jacobian(flow.to_latent, x)
    wanted = flow.base.log_prob(flow.to_latent(x)) + torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(flow.log_prob(x), wanted)


def test_no_default_is_mutable():
    """FrEIA: seventeen default arguments are mutable, and shared between instances."""
    for info in pkgutil.walk_packages(diffeo.__path__, "diffeo."):
        module = import_module(info.name)
        for thing in vars(module).values():
            if getattr(thing, "__module__", None) != info.name:
                continue
            functions = [thing] if inspect.isfunction(thing) else []
            if inspect.isclass(thing):
                functions = [f for f in vars(thing).values() if inspect.isfunction(f)]
            for f in functions:
                defaults = [p.default for p in inspect.signature(f).parameters.values()]
                assert not any(isinstance(d, list | dict | set | Tensor) for d in defaults), f.__qualname__


# -- nflows -------------------------------------------------------------------------------------------


def test_samples_of_several_contexts_stand_beside_each_other():
    """nflows: batched sampling concatenates on the context axis; sbi: two contexts interleave."""
    flow = randomize_(RealNVP(2, 1, layers=2, hidden=(8,)).build(), scale=0.05).double().eval()
    with torch.no_grad():  # z = x - 100 context, by the last part that shifts by the context
        net = MLP(0, 4, (), context_features=1)
        net.output.weight.copy_(torch.tensor([[-100.0], [0.0], [-100.0], [0.0]]))
    flow = Flow(Coupling([False, False], net, Affine()), Normal((2,))).double()
    context = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    x = flow.sample(500, context)
    assert x.shape == (500, 3, 2)
    torch.testing.assert_close(x.mean((0, 2)), 100 * context[:, 0], rtol=0, atol=0.5)
    assert (x.std(0) < 1.3).all()


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_float64_flows_sample_float64(name: str):
    """nflows: sampling a float64 flow crashes."""
    assert small(name, context=2).sample(3, normal(2, 2)).dtype == torch.float64


def test_act_norm_of_a_constant_column():
    """nflows: ActNorm gives NaN for a column that does not vary."""
    layer = ActNorm((2,))
    layer.initialize(torch.stack([torch.full((9,), 0.1), torch.randn(9)], 1))
    z, log_det = layer(torch.tensor([[0.1, 0.0]]))
    assert z.isfinite().all()
    assert log_det.isfinite().all()


# -- flowjax ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_nan_stays_nan(name: str):
    """flowjax: a NaN log-density becomes -inf."""
    log_prob = small(name).log_prob(
        torch.tensor([[0.0, math.nan, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    )
    assert log_prob.isnan().tolist() == [True, False]


@splines
@pytest.mark.parametrize("far", [3.5, 1e3, 1e6, 1e30])
def test_gradients_outside_the_box_are_finite(family, far: float):
    """flowjax: the branch of a spline not taken outside its box leaves NaN gradients (#239)."""
    for apply in (family.forward, family.inverse):
        x = torch.tensor([far, -far, 0.0], requires_grad=True)
        params = (10 * torch.randn(3, family.num_params, generator=generator(0))).requires_grad_()
        y, log_slope = apply(x, params)
        (y.sum() + log_slope[log_slope.isfinite()].sum()).backward()
        for t in (x, params):
            assert t.grad is not None
            assert t.grad.isfinite().all()


def test_the_last_partial_batch_is_trained_on():
    """flowjax: the last batch of an epoch is dropped when it is not full."""
    seen: list[int] = []

    def objective(flow: Flow, batch: Batch) -> Tensor:
        seen.extend(batch.rows.tolist())
        return Likelihood()(flow, batch)

    flow = MAF(2, layers=1, hidden=(8,)).build()
    diffeo.fit(flow, torch.randn(70, 2), objective=objective, validation=0, batch_size=32, max_epochs=1)
    assert sorted(set(seen)) == list(range(70))


# -- zuko, nflows, FrEIA, torchflows --------------------------------------------------------------------


@splines
def test_splines_are_captured_whole(family):
    """zuko, nflows, FrEIA, torchflows: masks, asserts and .any() keep splines from torch.compile."""
    for apply in (family.forward, family.inverse):
        torch._dynamo.reset()
        x, params = torch.linspace(-4, 4, 9), torch.randn(9, family.num_params)
        compiled = torch.compile(apply, fullgraph=True, backend="eager")
        for found, wanted in zip(compiled(x, params), apply(x, params), strict=True):
            torch.testing.assert_close(found, wanted)


def test_a_whole_flow_is_captured():
    """zuko, nflows, FrEIA, torchflows: flows of splines cannot be captured as one graph."""
    torch._dynamo.reset()
    flow = randomize_(NSF(2, layers=2, hidden=8, bins=4).build()).eval()
    x = torch.randn(5, 2)
    compiled = torch.compile(flow, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), flow.log_prob(x))


def test_masked_nets_with_few_units_still_condition():
    """Peers draw degrees at random, and narrow masked nets lose columns; here they are spread evenly."""
    net = randomize_(MADE(4, 1, (3,), activation=torch.tanh)).double()  # a ReLU may be dead
    x = normal(6, 4).requires_grad_()
    (slope,) = torch.autograd.grad(net(x)[:, 3].square().sum(), x)
    assert (slope[:, :3].abs().sum(0) > 0).all()
