"""What the probes of both environments measure by the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from peers.features import NO, PARTLY, YES, Seen


def verdict_of_times(score: float, draw: float) -> Seen:
    """One rule for all: a pass for each of the 32 columns takes about 32 times as long as one."""
    ratio = max(score, draw) / min(score, draw)
    slow, fast = ("sample", "log_prob") if draw > score else ("log_prob", "sample")
    verdict = YES if ratio < 6 else PARTLY if ratio < 16 else NO
    return verdict, f"{slow} takes {ratio:.1f} times as long as {fast}"


def by_turns(*runs: Callable[[], object], repeats: int = 12) -> list[float]:
    """The shortest time of each, in seconds: what else the machine does only adds, and to both alike."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats + 2):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    return [min(taken[2:]) for taken in times]
