"""FlowJAX, jitted: weights and optimizer state go in as flat lists, the cheapest way to call."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import Normal
from flowjax.flows import coupling_flow, masked_autoregressive_flow
from flowjax.train.losses import MaximumLikelihoodLoss
from paramax import NonTrainable, non_trainable

from peers.architecture import BINS, BOUND, HIDDEN, LAYERS, LEARNING_RATE, Spec

KEYS = 256


def build(spec: Spec) -> OnJax:
    make = coupling_flow if spec.coupling else masked_autoregressive_flow
    flow = make(
        jr.key(0),
        base_dist=non_trainable(Normal(jnp.zeros(spec.features))),
        # `knots` are inner ones: 7 of them make 8 bins
        transformer=RationalQuadraticSpline(knots=BINS - 1, interval=BOUND) if spec.spline else None,
        flow_layers=LAYERS,
        nn_width=HIDDEN[0],
        nn_depth=len(HIDDEN),
    )
    note = "random permutations between layers"
    note += "; two more parameters a spline (slopes at the box's ends)" if spec.spline else ""
    return OnJax(flow, spec.features, note)


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

    def warm_up(self) -> None:
        self.prepare("train", 2)()

    def finite(self, result: Any) -> bool:
        return bool(jnp.isfinite(result).all())


def _ahead(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    return jax.jit(function).lower(*arguments).compile()
