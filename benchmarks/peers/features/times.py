"""What the probes of both environments measure by the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from peers.features import NO, YES, Seen


def verdict_of_times(score: float, draw: float) -> Seen:
    ratio = max(score, draw) / min(score, draw)
    slow, fast = ("sample", "log_prob") if draw > score else ("log_prob", "sample")
    return (YES if ratio < 6 else NO), f"{slow} takes {ratio:.1f} times as long as {fast}"


def least(run: Callable[[], object], repeats: int = 7) -> float:
    """The shortest of some runs, in seconds: what else the machine does only adds."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times[2:])
