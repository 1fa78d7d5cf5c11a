"""What a new process does until its first result; the parent holds the clock.

python -m peers.cold CONTESTANT log_prob|train|sample|fit THREADS
"""

from __future__ import annotations

import sys

from peers.architecture import Spec
from peers.contestants import ENTRIES
from peers.machine import pin

SPEC = Spec("NSF", 64)
BATCH = 1024


def fit() -> None:
    """A training step by diffeo's own loop."""
    import torch

    import diffeo
    from peers.contestants.diffeo import flow_of

    x = torch.randn(BATCH, SPEC.features)
    diffeo.fit(flow_of(SPEC), x, max_steps=1, batch_size=BATCH, validation=0)


def main() -> None:
    name, kind, threads = sys.argv[1:]
    pin(int(threads))
    if kind == "fit":
        fit()
    else:
        ENTRIES[name].build(SPEC).prepare(kind, BATCH)()
    print("done", flush=True)


if __name__ == "__main__":
    main()
