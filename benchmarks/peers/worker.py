"""One contestant's process: a JSON request a line on standard input, an answer a line on standard output.

python -m peers.worker CONTESTANT THREADS
"""

from __future__ import annotations

import ctypes
import gc
import json
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import kit

from peers.libraries import ENTRIES, Contestant
from peers.spec import Spec, Unsupported

SLOW = 2.0
"""A call of so many seconds is not repeated for calibration."""


class Worker:
    def __init__(self, name: str):
        self.entry = ENTRIES[name]
        self.flow: Contestant | None = None
        self.call: Callable[[], Any] | None = None

    def versions(self) -> dict[str, str]:
        return {"python": platform.python_version(), **self.entry.versions()}

    def build(self, model: str, features: int) -> dict[str, Any]:
        self.call = self.flow = None
        self.flow = self.entry.build(Spec(model, features))
        return {"parameters": self.flow.parameters, "note": self.flow.note}

    def prepare(self, kind: str, batch: int) -> dict[str, Any]:
        """Make the call and time it: ``wait`` is all until the first result, ``call`` one call after it."""
        assert self.flow is not None
        self.call = None
        gc.collect()
        tick = time.perf_counter()
        self.call = self.flow.prepare(kind, batch)
        compiled = time.perf_counter()
        result = self.call()
        done = time.perf_counter()
        again = self.flow.compiles or done - compiled < SLOW
        call = self.run(1) if again else done - compiled
        return {"wait": done - tick, "call": call, "finite": self.flow.finite(result)}

    def run(self, calls: int) -> float:
        """Seconds a call."""
        assert self.call is not None
        call = self.call
        tick = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - tick) / calls

    def round_trip(self, batch: int) -> float:
        """How far ``forward(inverse(z))`` is from z, at most."""
        assert self.flow is not None
        self.call = None
        return float(self.flow.prepare("round_trip", batch)())

    def memory(self, batch: int) -> float:
        """By how many MB two training steps push the peak above what the process held before."""
        assert self.flow is not None
        step = self.flow.prepare("train", batch)
        self.flow.prepare("train", 2)()  # allocations that come but once are not counted
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what is free already must not hide what the steps take
        with kit.Peak() as peak:
            step()
            step()
        return peak.mb


def main() -> None:
    name, threads = sys.argv[1], int(sys.argv[2])
    kit.pin(threads)
    answers, sys.stdout = sys.stdout, sys.stderr
    worker = Worker(name)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(worker, request.pop("do"))(**request)}
        except Unsupported as error:
            answer = {"unsupported": str(error)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
