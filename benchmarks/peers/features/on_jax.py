"""FlowJAX's probes: prints, as JSON, what they showed.

python -m peers.features.on_jax
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib.metadata import version

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import Normal
from flowjax.flows import (
    block_neural_autoregressive_flow,
    coupling_flow,
    masked_autoregressive_flow,
)
from flowjax.train import fit_to_data, fit_to_key_based_loss
from flowjax.train.losses import ElboLoss
from paramax import unwrap

from peers.features import NO, PARTLY, YES, Seen, absent, console_scripts, stated
from peers.features.times import by_turns, verdict_of_times

BASE = Normal(jnp.zeros(4))


def stirred(flow):
    """Weights as after training."""
    leaves, tree = jax.tree.flatten(eqx.filter(flow, eqx.is_inexact_array))
    keys = jr.split(jr.key(7), len(leaves))
    moved = [a + 0.1 * jr.normal(k, a.shape, a.dtype) for a, k in zip(leaves, keys, strict=True)]
    return eqx.combine(tree.unflatten(moved), flow)


@eqx.filter_jit
def log_prob(flow, *arguments):
    """The density, compiled: op by op it takes minutes."""
    return flow.log_prob(*arguments)


def log_det() -> Seen:
    with jax.enable_x64(True):
        flow = stirred(coupling_flow(jr.key(0), base_dist=Normal(jnp.zeros(4)), flow_layers=3, nn_width=32))
        flow = unwrap(flow)

        @jax.jit
        def difference(x):
            jacobian = jax.jacobian(flow.bijection.inverse)(x)
            wanted = flow.base_dist.log_prob(flow.bijection.inverse(x)) + jnp.linalg.slogdet(jacobian)[1]
            return abs(flow.log_prob(x) - wanted)

        differences = [difference(x) for x in jr.normal(jr.key(1), (6, 4))]
        worst = float(jnp.stack(differences).max())  # not a number, if one is
    return (YES if worst < 1e-8 else NO), f"largest difference {worst:.0e}"


def stress() -> Seen:
    logits = np.random.default_rng(0).choice([-10.0, 10.0], (200, 27)).astype("float32")
    start = RationalQuadraticSpline(knots=7, interval=3)
    leaves, tree = jax.tree.flatten(eqx.filter(start, eqx.is_inexact_array))
    assert sum(leaf.size for leaf in leaves) <= logits.shape[1], [leaf.shape for leaf in leaves]
    x = jnp.linspace(-2.999, 2.999, 101)

    def trip(raw):
        parts, at = [], 0
        for leaf in leaves:
            parts.append(raw[at : at + leaf.size].reshape(leaf.shape))
            at += leaf.size
        spline = unwrap(eqx.combine(tree.unflatten(parts), start))
        y, slope = jax.vmap(spline.transform_and_log_det)(x)
        return jax.vmap(spline.inverse)(y), slope

    back, log_slope = (np.asarray(a) for a in jax.jit(jax.vmap(trip))(logits))
    error, bad = np.abs(back - np.asarray(x)), int((~np.isfinite(back)).sum())
    bound = 64 * np.finfo("float32").eps * 3 * (1 + np.exp(-log_slope.astype("float64")))
    beyond = int((~(error <= bound)).sum())
    worst = error[np.isfinite(error)].max()
    seen = f"{bad} of {back.size:,} not finite, {beyond} beyond the bound, largest error {worst:.0e}"
    return (YES if not beyond else NO), seen


def far() -> Seen:
    flow = block_neural_autoregressive_flow(jr.key(0), base_dist=Normal(jnp.zeros(1)))
    layer = unwrap(flow.bijection)
    x = jnp.array([40.0])
    back = eqx.filter_jit(lambda layer: layer.transform(layer.inverse(x)))(layer)
    return (YES if abs(back[0] - 40) < 0.04 else NO), f"inverse of f(40): {float(back[0]):.4g}, block nets"


def context() -> Seen:
    x, c = jnp.ones((5, 4)), jr.normal(jr.key(1), (5, 2))
    lacks = []
    for make in (coupling_flow, masked_autoregressive_flow):
        for transformer in (None, RationalQuadraticSpline(knots=7, interval=3)):
            flow = make(
                jr.key(0), base_dist=BASE, transformer=transformer, cond_dim=2, flow_layers=1, nn_width=32
            )
            if not log_prob(stirred(flow), x, c).std() > 1e-6:
                lacks.append(make.__name__)
    return (NO if lacks else YES), "all four" if not lacks else f"without: {lacks}"


def both_ways() -> Seen:
    flow = masked_autoregressive_flow(jr.key(0), base_dist=Normal(jnp.zeros(32)), flow_layers=5, nn_width=32)
    x = jr.normal(jr.key(1), (256, 32))
    score = eqx.filter_jit(lambda f, x: f.log_prob(x))
    draw = eqx.filter_jit(lambda f, k: f.sample(k, (256,)))
    times = by_turns(
        lambda: score(flow, x).block_until_ready(), lambda: draw(flow, jr.key(2)).block_until_ready()
    )
    return verdict_of_times(*times)


def compiled() -> Seen:
    spline = RationalQuadraticSpline(knots=7, interval=3)
    flow = masked_autoregressive_flow(jr.key(0), base_dist=BASE, transformer=spline, flow_layers=2)
    assert jnp.isfinite(log_prob(flow, jnp.ones((5, 4)))).all()
    return YES, "`jax.jit`"


def deterministic() -> Seen:
    flow, x = coupling_flow(jr.key(0), base_dist=BASE), jnp.ones((5, 4))
    return (YES if (log_prob(flow, x) == log_prob(flow, x)).all() else NO), "the same twice: couplings"


def trainer() -> Seen:
    flow = coupling_flow(jr.key(0), base_dist=BASE, flow_layers=1, nn_width=8)
    x = jr.normal(jr.key(1), (64, 4))
    _, losses = fit_to_data(jr.key(2), flow, x, max_epochs=2, max_patience=1, show_progress=False)
    assert set(losses) == {"train", "val"}
    return YES, "`fit_to_data(max_patience=)`"


def memory() -> Seen:
    """Of what the backward pass keeps, the arrays that have an axis of rows."""
    rows = 513

    def kept(layers: int) -> int:
        flow = coupling_flow(jr.key(0), base_dist=Normal(jnp.zeros(8)), flow_layers=layers, nn_width=32)
        weights, rest = eqx.partition(flow, eqx.is_inexact_array)
        x = jr.normal(jr.key(1), (rows, 8))
        _, pull = jax.vjp(lambda w: eqx.combine(w, rest).log_prob(x).mean(), weights)
        return sum(a.nbytes for a in jax.tree.leaves(pull) if rows in getattr(a, "shape", ()))

    ratio = kept(16) / kept(4)
    return (YES if ratio < 1.5 else NO), f"{ratio:.1f} times as much"


def tables() -> Seen:
    scripts = console_scripts("flowjax")
    assert not scripts, scripts
    return NO, "no console script"


def transformed() -> Seen:
    flow = coupling_flow(jr.key(0), base_dist=BASE, flow_layers=1, nn_width=8)
    slope = jax.jit(jax.vmap(jax.grad(flow.log_prob)))
    assert jnp.isfinite(slope(jnp.ones((3, 4)))).all()
    return YES, f"JAX {jax.__version__}; TPUs not run"


def targets() -> Seen:
    flow = coupling_flow(jr.key(0), base_dist=BASE, flow_layers=1, nn_width=8, invert=False)
    loss = ElboLoss(lambda x: -0.5 * (x**2).sum(-1), num_samples=8)
    fit_to_key_based_loss(jr.key(1), flow, loss_fn=loss, steps=2, show_progress=False)
    return YES, "`ElboLoss`, `fit_to_key_based_loss`"


def block() -> Seen:
    flow = block_neural_autoregressive_flow(jr.key(0), base_dist=BASE)
    assert jnp.isfinite(log_prob(flow, jnp.ones(4)))
    return YES, "`block_neural_autoregressive_flow`"


def searched(pattern: str):
    return lambda: absent("FlowJAX", pattern)


PROBES = {
    "log_det": log_det,
    "stress": stress,
    "far": far,
    "context": context,
    "both_ways": both_ways,
    "compile": compiled,
    "continuous": searched("ode(int|$)|cnf|continuous|ffjord"),
    "residual": searched("iresnet|contracti|lipschitz|residual"),
    "images": searched("multiscale|squeeze|haar|glow|conv"),
    "circular": searched("circul|periodic|torus|angle"),
    "deterministic": deterministic,
    "dequantization": searched("dequant"),
    "memory": memory,
    "tables": tables,
    "trainer": trainer,
    "resume": searched("resume|checkpoint"),
    "files": searched(r"^save|^load|\.save$|\.load$|serial"),
    "targets": targets,
    "evidence": searched(r"log_?z$|evidence|(^|_)ess$|effective_s|normalizer$"),
    "vae": lambda: stated(PARTLY, "of parts: samples with log-density and gradients; the loss by hand"),
    "graph": searched("graph"),
    "program": lambda: stated(YES, "`flowjax.experimental.numpyro`, for NumPyro"),
    "stochastic": searched("metropol|stochastic|langevin|mcmc"),
    "block": block,
    "jax": transformed,
}


def main() -> None:
    warnings.simplefilter("ignore")
    table: dict = {"versions": {name: version(name) for name in ("flowjax", "jax")}}
    for key, probe in PROBES.items():
        table[key] = {"FlowJAX": probe()}
        print(key, *table[key]["FlowJAX"], file=sys.stderr, flush=True)
    print(json.dumps(table))


if __name__ == "__main__":
    main()
