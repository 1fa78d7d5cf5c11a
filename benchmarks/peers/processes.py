"""Workers from the driver's side."""

from __future__ import annotations

import json
import selectors
import subprocess
from typing import Any

import kit

from peers.libraries import ENTRIES
from peers.spec import Unsupported


class Failed(Exception):
    """A contestant raised, died or ran out of time."""


class Process:
    """One worker; it starts when it is first asked, and anew after it was ended."""

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
            env, pipe = kit.environment(self.threads), subprocess.PIPE
            with open(logs / f"{self.name.replace(' ', '_')}.txt", "a") as log:
                self.process = subprocess.Popen(
                    command, stdin=pipe, stdout=pipe, stderr=log, text=True, env=env
                )
        return self.process

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def versions(names: list[str], threads: int) -> dict[str, str]:
    """What these contestants stand on, each asked in a process that then ends."""
    found: dict[str, str] = {}
    for name in names:
        process = Process(name, threads, 60.0)
        found |= process.ask("versions")
        process.end()
    return found
