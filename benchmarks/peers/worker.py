"""One contestant's process, from both sides: a JSON request a line goes in, an answer a line comes out.

python -m peers.worker CONTESTANT THREADS
"""

from __future__ import annotations

import ctypes
import gc
import json
import platform
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import kit

from peers.libraries import ENTRIES, Contestant
from peers.spec import Spec, Unsupported

SLOW = 2.0
"""A call of so many seconds is not repeated for calibration."""
FIRST, FIRST_BATCH = Spec("NSF", 64), 1024
"""The flow of ``first``."""


class Worker:
    """What a process is asked for."""

    def __init__(self, name: str):
        self.entry = ENTRIES[name]
        self.flow: Contestant
        self.call: Callable[[], Any] | None = None

    def versions(self) -> dict[str, str]:
        return {"python": platform.python_version(), **self.entry.versions()}

    def build(self, model: str, features: int) -> dict[str, Any]:
        self.call = self.flow = None  # type: ignore[assignment]
        self.flow = self.entry.build(Spec(model, features))
        return {"parameters": self.flow.parameters, "note": self.flow.note}

    def prepare(self, kind: str, batch: int) -> dict[str, Any]:
        """Make the call and time it: ``wait`` is all until the first result, ``call`` one call after it."""
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
        self.call = None
        return float(self.flow.prepare("round_trip", batch)())

    def memory(self, batch: int) -> float:
        """By how many MB two training steps push the peak above what the process held before."""
        step = self.flow.prepare("train", batch)
        self.flow.prepare("train", 2)()  # allocations that come but once are not counted
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what is free already must not hide what the steps take
        with kit.Peak() as peak:
            step()
            step()
        return peak.mb

    def first(self, kind: str) -> None:
        """A new process's first result: of PyTorch's import, of diffeo's own loop, or of a call."""
        if kind == "import":
            import torch
        elif kind == "fit":
            import torch

            import diffeo

            flow = self.entry.adapter.flow_of(FIRST)
            x = torch.randn(FIRST_BATCH, FIRST.features)
            diffeo.fit(flow, x, max_steps=1, batch_size=FIRST_BATCH, validation=0)
        else:
            self.entry.build(FIRST).prepare(kind, FIRST_BATCH)()


class Failed(Exception):
    """A contestant raised, died or ran out of time."""


class Process:
    """A worker from the driver's side; it starts when it is first asked, and anew after it was ended."""

    def __init__(self, name: str, threads: int, limit: float):
        self.name, self.threads, self.limit = name, threads, limit
        self.process: subprocess.Popen[str] | None = None

    def ask(self, do: str, **arguments: Any) -> Any:
        """Its answer; ``Unsupported`` or ``Failed`` otherwise, also after ``limit`` seconds."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(self.limit):
                self.end()
                raise Failed(f"no answer in {self.limit:.0f} s")
        line = process.stdout.readline()
        if not line:
            self.end()
            raise Failed("the process died")
        answer = json.loads(line)
        if "unsupported" in answer:
            raise Unsupported(answer["unsupported"])
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["ok"]

    def _running(self) -> subprocess.Popen[str]:
        if self.process is None:
            logs = kit.ROOT / ".bench" / "logs"
            logs.mkdir(parents=True, exist_ok=True)
            interpreter = kit.python(ENTRIES[self.name].venv)
            command = [interpreter, "-m", "peers.worker", self.name, str(self.threads)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            with open(logs / f"{self.name.replace(' ', '_')}.txt", "a") as log:
                env = kit.environment(self.threads)
                self.process = subprocess.Popen(command, stderr=log, env=env, **pipes)
        return self.process

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def once(name: str, threads: int, do: str, **arguments: Any) -> Any:
    """The answer of a process that then ends."""
    process = Process(name, threads, 120.0)
    try:
        return process.ask(do, **arguments)
    finally:
        process.end()


def versions(names: list[str], threads: int) -> dict[str, str]:
    """What these contestants stand on."""
    return {package: v for name in names for package, v in once(name, threads, "versions").items()}


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
