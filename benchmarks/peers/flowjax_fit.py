"""FlowJAX's neural spline flow fitted by ``fit_to_data``'s defaults: seconds and mean nats, as JSON.

    python -m peers.flowjax_fit FOLDER SEED DEPTH THREADS

FOLDER holds train.npy and test.npy. Seconds are those of ``fit_to_data``, its compilation included.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from peers.machine import pin


def main() -> None:
    folder, seed, depth = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    pin(int(sys.argv[4]))
    import equinox as eqx
    import jax.numpy as jnp
    import jax.random as jr
    import numpy as np
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import masked_autoregressive_flow
    from flowjax.train import fit_to_data

    train, test = (jnp.asarray(np.load(folder / f"{part}.npy")) for part in ("train", "test"))
    key, other = jr.split(jr.key(seed))
    flow = masked_autoregressive_flow(
        key,
        base_dist=Normal(jnp.zeros(train.shape[1])),
        transformer=RationalQuadraticSpline(knots=8, interval=4),
        flow_layers=5,
        nn_width=128,
        nn_depth=depth,
    )
    tick = time.perf_counter()
    flow, losses = fit_to_data(other, flow, train, show_progress=False)
    seconds = time.perf_counter() - tick
    scores = eqx.filter_jit(type(flow).log_prob)(flow, test)
    found = {
        "seconds": seconds,
        "test": float(scores.mean()),
        "valid": -min(losses["val"]),
        "epochs": len(losses["val"]),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
