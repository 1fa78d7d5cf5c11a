"""What a new process does until its first result; the parent holds the clock.

python -m peers.cold CONTESTANT log_prob|train|sample|fit THREADS
"""

from __future__ import annotations

import sys

import kit

from peers.libraries import ENTRIES
from peers.spec import Spec

SPEC = Spec("NSF", 64)
BATCH = 1024


def fit() -> None:
    """A training step by diffeo's own loop."""
    import torch

    import diffeo
    from peers.libraries.diffeo import flow_of

    x = torch.randn(BATCH, SPEC.features)
    diffeo.fit(flow_of(SPEC), x, max_steps=1, batch_size=BATCH, validation=0)


if __name__ == "__main__":
    name, kind, threads = sys.argv[1:]
    kit.pin(int(threads))
    fit() if kind == "fit" else ENTRIES[name].build(SPEC).prepare(kind, BATCH)()
    print("done", flush=True)
