"""FlowJAX, jitted: weights and optimizer state go in as flat lists, the cheapest way to call."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import kit
import numpy as np
import optax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import Normal
from flowjax.flows import block_neural_autoregressive_flow, coupling_flow, masked_autoregressive_flow
from flowjax.train import fit_to_data, fit_to_key_based_loss
from flowjax.train.losses import ElboLoss, MaximumLikelihoodLoss
from paramax import NonTrainable, non_trainable, unwrap

from peers.features import NO, PARTLY, YES, Seen, ran, stated, verdict_of_times
from peers.spec import BINS, BOUND, LEARNING_RATE, Spec

KEYS = 256


def flow_of(spec: Spec) -> Any:
    make = coupling_flow if spec.coupling else masked_autoregressive_flow
    return make(
        jr.key(0),
        base_dist=non_trainable(Normal(jnp.zeros(spec.features))),
        # `knots` are inner ones: 7 of them make 8 bins
        transformer=RationalQuadraticSpline(knots=BINS - 1, interval=BOUND) if spec.spline else None,
        cond_dim=spec.context or None,
        flow_layers=spec.layers,
        nn_width=spec.hidden[0],
        nn_depth=len(spec.hidden),
    )


def build(spec: Spec) -> OnJax:
    note = "random permutations between layers"
    note += "; two more parameters a spline (slopes at the box's ends)" if spec.spline else ""
    return OnJax(flow_of(spec), spec.features, note)


class OnJax:
    """A FlowJAX flow, each call compiled ahead of time."""

    compiles = False  # `prepare` does, not the first call

    def __init__(self, flow: Any, features: int, note: str):
        self.features, self.note = features, note
        params, self.static = eqx.partition(
            flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, NonTrainable)
        )
        self.leaves, self.tree = jax.tree.flatten(params)
        self.parameters = sum(leaf.size for leaf in self.leaves)

    def flow(self, leaves: list[jax.Array]) -> Any:
        return eqx.combine(self.tree.unflatten(leaves), self.static)

    def prepare(self, kind: str, batch: int) -> Callable[[], Any]:
        x = jr.normal(jr.key(batch), (batch, self.features))
        keys = cycle([jax.block_until_ready(k) for k in jr.split(jr.key(1), KEYS)])
        if kind == "log_prob":
            score = _ahead(lambda leaves, x: self.flow(leaves).log_prob(x), self.leaves, x)
            return lambda: score(self.leaves, x).block_until_ready()
        if kind == "sample":
            draw = _ahead(
                lambda leaves, key: self.flow(leaves).sample(key, (batch,)), self.leaves, next(keys)
            )
            return lambda: draw(self.leaves, next(keys)).block_until_ready()
        return self._training(x)

    def _training(self, x: jax.Array) -> Callable[[], Any]:
        optimizer, loss_of = optax.adam(LEARNING_RATE), MaximumLikelihoodLoss()
        state, state_tree = jax.tree.flatten(optimizer.init(self.leaves))

        def step(leaves: list[jax.Array], state: list[jax.Array], x: jax.Array) -> Any:
            loss, slopes = jax.value_and_grad(
                lambda leaves: loss_of(self.tree.unflatten(leaves), self.static, x)
            )(leaves)
            updates, new = optimizer.update(slopes, state_tree.unflatten(state))
            return optax.apply_updates(leaves, updates), jax.tree.leaves(new), loss

        ahead = _ahead(step, self.leaves, state, x)
        now = [self.leaves, state]

        def run() -> Any:
            now[0], now[1], loss = jax.block_until_ready(ahead(*now, x))
            return loss

        return run

    def finite(self, result: Any) -> bool:
        return bool(jnp.isfinite(result).all())


def _ahead(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    return jax.jit(function).lower(*arguments).compile()


def fit(folder: Path, seed: int, depth: int) -> dict[str, float]:
    """A neural spline flow fitted by ``fit_to_data``'s defaults to FOLDER/train.npy: seconds, mean nats.

    Seconds are those of ``fit_to_data``, its compilation included.
    """
    train, test = (jnp.asarray(np.load(folder / f"{part}.npy")) for part in ("train", "test"))
    key, other = jr.split(jr.key(seed))
    base, spline = Normal(jnp.zeros(train.shape[1])), RationalQuadraticSpline(knots=8, interval=4)
    sizes = {"flow_layers": 5, "nn_width": 128, "nn_depth": depth}
    flow = masked_autoregressive_flow(key, base_dist=base, transformer=spline, **sizes)
    tick = time.perf_counter()
    flow, losses = fit_to_data(other, flow, train, show_progress=False)
    seconds = time.perf_counter() - tick
    scores = eqx.filter_jit(type(flow).log_prob)(flow, test)
    found = {"seconds": seconds, "test": float(scores.mean()), "valid": -min(losses["val"])}
    return {**found, "epochs": len(losses["val"])}


# -- probes -------------------------------------------------------------------------------------------


def small(model: str, features: int, layers: int, context: int = 0) -> Any:
    """Weights as after training."""
    flow = flow_of(Spec(model, features, layers, (32,), context))
    leaves, tree = jax.tree.flatten(eqx.filter(flow, eqx.is_inexact_array))
    keys = jr.split(jr.key(7), len(leaves))
    moved = [a + 0.1 * jr.normal(k, a.shape, a.dtype) for a, k in zip(leaves, keys, strict=True)]
    return eqx.combine(tree.unflatten(moved), flow)


@eqx.filter_jit
def log_prob(flow: Any, *arguments: Any) -> Any:
    """The density, compiled: op by op it takes minutes."""
    return flow.log_prob(*arguments)


def _log_det() -> Seen:
    with jax.enable_x64(True):
        flow = unwrap(small("RealNVP", 4, 3))

        @jax.jit
        def difference(x: Any) -> Any:
            jacobian = jax.jacobian(flow.bijection.inverse)(x)
            wanted = flow.base_dist.log_prob(flow.bijection.inverse(x)) + jnp.linalg.slogdet(jacobian)[1]
            return abs(flow.log_prob(x) - wanted)

        worst = float(jnp.stack([difference(x) for x in jr.normal(jr.key(1), (6, 4))]).max())
    return (YES if worst < 1e-8 else NO), f"largest difference {worst:.0e}"


def _stress() -> Seen:
    logits = np.random.default_rng(0).choice([-10.0, 10.0], (200, 27)).astype("float32")
    start = RationalQuadraticSpline(knots=7, interval=3)
    leaves, tree = jax.tree.flatten(eqx.filter(start, eqx.is_inexact_array))
    ends = np.cumsum([leaf.size for leaf in leaves])
    assert ends[-1] <= logits.shape[1], [leaf.shape for leaf in leaves]
    x = jnp.linspace(-2.999, 2.999, 101)

    def trip(raw: Any) -> Any:
        parts = zip(jnp.split(raw[: ends[-1]], ends[:-1]), leaves, strict=True)
        spline = unwrap(eqx.combine(tree.unflatten([p.reshape(leaf.shape) for p, leaf in parts]), start))
        y, slope = jax.vmap(spline.transform_and_log_det)(x)
        return jax.vmap(spline.inverse)(y), slope

    back, log_slope = (np.asarray(a) for a in jax.jit(jax.vmap(trip))(logits))
    error, bad = np.abs(back - np.asarray(x)), int((~np.isfinite(back)).sum())
    bound = 64 * np.finfo("float32").eps * 3 * (1 + np.exp(-log_slope.astype("float64")))
    beyond = int((~(error <= bound)).sum())
    worst = error[np.isfinite(error)].max()
    seen = f"{bad} of {back.size:,} not finite, {beyond} beyond the bound, largest error {worst:.0e}"
    return (YES if not beyond else NO), seen


def _far() -> Seen:
    flow = block_neural_autoregressive_flow(jr.key(0), base_dist=Normal(jnp.zeros(1)))
    layer = unwrap(flow.bijection)
    x = jnp.array([40.0])
    back = eqx.filter_jit(lambda layer: layer.transform(layer.inverse(x)))(layer)
    return (YES if abs(back[0] - 40) < 0.04 else NO), f"inverse of f(40): {float(back[0]):.4g}, block nets"


def _context() -> Seen:
    x, c = jnp.ones((5, 4)), jr.normal(jr.key(1), (5, 2))
    models = ("RealNVP", "CouplingNSF", "MAF", "NSF")
    lacks = [model for model in models if not log_prob(small(model, 4, 1, 2), x, c).std() > 1e-6]
    return (NO if lacks else YES), "all four" if not lacks else f"without: {lacks}"


def _both_ways() -> Seen:
    built = OnJax(flow_of(Spec("MAF", 32, 5, (32,))), 32, "")
    runs = {"score": built.prepare("log_prob", 256), "draw": built.prepare("sample", 256)}
    return verdict_of_times(kit.by_turns(runs, 12))


def _deterministic() -> Seen:
    flow, x = small("RealNVP", 4, 8), jnp.ones((5, 4))
    return (YES if (log_prob(flow, x) == log_prob(flow, x)).all() else NO), "the same twice: couplings"


def _trainer() -> float:
    x, short = jr.normal(jr.key(1), (64, 4)), {"max_epochs": 2, "max_patience": 1, "show_progress": False}
    return fit_to_data(jr.key(2), small("RealNVP", 4, 1), x, **short)[1]["val"][-1]


def _memory() -> Seen:
    """Of what the backward pass keeps, the arrays that have an axis of rows."""
    rows = 513

    def kept(layers: int) -> int:
        weights, rest = eqx.partition(small("RealNVP", 8, layers), eqx.is_inexact_array)
        x = jr.normal(jr.key(1), (rows, 8))
        _, pull = jax.vjp(lambda w: eqx.combine(w, rest).log_prob(x).mean(), weights)
        return sum(a.nbytes for a in jax.tree.leaves(pull) if rows in getattr(a, "shape", ()))

    ratio = kept(16) / kept(4)
    return (YES if ratio < 1.5 else NO), f"{ratio:.1f} times as much"


def _targets() -> None:
    flow = coupling_flow(jr.key(0), base_dist=Normal(jnp.zeros(4)), flow_layers=1, nn_width=8, invert=False)
    loss = ElboLoss(lambda x: -0.5 * (x**2).sum(-1), num_samples=8)
    fit_to_key_based_loss(jr.key(1), flow, loss_fn=loss, steps=2, show_progress=False)


def _block() -> Any:
    return log_prob(block_neural_autoregressive_flow(jr.key(0), base_dist=Normal(jnp.zeros(4))), jnp.ones(4))


def _jax() -> Any:
    return jax.jit(jax.vmap(jax.grad(small("RealNVP", 4, 1).log_prob)))(jnp.ones((3, 4))).sum()


PROBES = {
    "log_det": _log_det,
    "stress": _stress,
    "far": _far,
    "context": _context,
    "both_ways": _both_ways,
    "compile": ran(YES, "`jax.jit`", lambda: log_prob(small("NSF", 4, 2), jnp.ones((5, 4))).sum()),
    "deterministic": _deterministic,
    "memory": _memory,
    "trainer": ran(YES, "`fit_to_data(max_patience=)`", _trainer),
    "targets": ran(YES, "`ElboLoss`, `fit_to_key_based_loss`", _targets),
    "vae": stated(PARTLY, "of parts: samples with log-density and gradients; the loss by hand"),
    "program": stated(YES, "`flowjax.experimental.numpyro`, for NumPyro"),
    "block": ran(YES, "`block_neural_autoregressive_flow`", _block),
    "jax": ran(YES, f"JAX {jax.__version__}; TPUs not run", _jax),
}

if __name__ == "__main__":  # FOLDER SEED DEPTH THREADS
    kit.pin(int(sys.argv[4]))
    print(json.dumps(fit(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
