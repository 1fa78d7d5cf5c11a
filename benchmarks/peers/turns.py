"""The measuring: contestants in turn, one at a time."""

from __future__ import annotations

import math
import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from peers.libraries import COMPILED, ENTRIES, FLOOR, OURS
from peers.pages import MEMORY, ROUND_TRIP, Found, cell
from peers.spec import Spec, Unsupported
from peers.worker import Failed, Process

CALLS_SECONDS = 0.02
"""A timing lasts at least so long: fast calls are repeated within it."""
REST_SECONDS = 0.03
"""Between two contestants: threads of the one before still spin for a while."""
LIMIT_SECONDS = 120.0
"""A process that is silent so long, and as long as a call may take, is ended."""


class Bench:
    """All contestants' processes, and what was found."""

    def __init__(self, names: list[str], asked: Namespace):
        self.names, self.asked = names, asked
        limit = LIMIT_SECONDS + asked.skip_seconds
        self.processes = {name: Process(name, asked.threads, limit) for name in names}
        self.flows: list[Found] = []
        self.rows: list[Found] = []
        self.built: list[str] = []

    def build(self, spec: Spec) -> None:
        """Every contestant builds the flow; who cannot says why and sits out."""
        known, self.built = {}, []
        for name in (name for name in self.names if spec.model in ENTRIES[name].builders):
            try:
                known[name] = self._ask(spec, name, "build", model=spec.model, features=spec.features)
                self.built.append(name)
            except (Unsupported, Failed) as error:
                known[name] = {"missing": str(error)}
        flow = {"model": spec.model, "features": spec.features, "expected": spec.parameters}
        self.flows.append({**flow, "contestants": known})

    def time(self, spec: Spec, kind: str, batch: int) -> None:
        """One row of one table."""
        cells: dict[str, Found] = {}
        rounds: dict[str, int] = {}
        for name in self.built:
            if name == COMPILED and (kind == "sample" or batch not in self.asked.compiled_batch):
                continue
            cells[name] = self._hopeless(spec, kind, batch, name) or self._prepared(spec, kind, batch, name)
            rounds[name] = cells[name].pop("rounds", 0)
        for i in range(max(rounds.values(), default=0)):
            turn = [name for name in rounds if rounds[name] > i]
            for name in turn[i % len(turn) :] + turn[: i % len(turn)]:
                time.sleep(REST_SECONDS)
                try:
                    cells[name]["seconds"].append(self._ask(spec, name, "run", calls=cells[name]["calls"]))
                except Failed as error:
                    cells[name], rounds[name] = {"failed": str(error)}, 0
        for found in cells.values():
            if "seconds" in found:
                found["seconds"].sort()
                found["median"] = statistics.median(found["seconds"])
        self._row(spec, kind, batch, cells)

    def _prepared(self, spec: Spec, kind: str, batch: int, name: str) -> Found:
        """A cell with its first call made: how many calls a timing and how many rounds it can afford."""
        try:
            ready = self._ask(spec, name, "prepare", kind=kind, batch=batch)
        except Failed as error:
            return {"failed": str(error)}
        if not ready["finite"]:
            return {"failed": "the result is not finite"}
        calls = math.ceil(CALLS_SECONDS / ready["call"])
        rounds = min(self.asked.rounds, int(self.asked.cell_seconds / (calls * ready["call"])))
        seconds = [] if rounds else [ready["call"]]  # too slow for a second time
        return {"wait": ready["wait"], "calls": calls, "rounds": rounds, "seconds": seconds}

    def _ask(self, spec: Spec, name: str, do: str, **arguments: Any) -> Any:
        """Its answer; a process that was ended has the flow again for the next row."""
        process = self.processes[name]
        try:
            return process.ask(do, **arguments)
        except Failed:
            if process.process is None:
                process.ask("build", model=spec.model, features=spec.features)
            raise

    def _hopeless(self, spec: Spec, kind: str, batch: int, name: str) -> Found | None:
        """A cell that smaller batches rule out: one failed, or their line rises too high."""
        place = spec.model, spec.features, kind
        rows = [row for row in self.rows if (row["model"], row["features"], row["kind"]) == place]
        known = {row["batch"]: row["cells"][name] for row in rows if name in row["cells"]}
        for smaller in known.values():
            if "failed" in smaller:
                return {"failed": smaller["failed"]}
        times = sorted((b, smaller.get("median") or smaller["above"]) for b, smaller in known.items())
        if not times:
            return None
        (b1, t1), (b0, t0) = times[-1], times[max(0, len(times) - 2)]
        slope = 0.0 if b1 == b0 else max(0.0, t1 - t0) / (b1 - b0)
        above = t1 + slope * (batch - b1)
        return {"above": above} if above > self.asked.skip_seconds else None

    def round_trip(self, spec: Spec, batch: int) -> None:
        """How far ``forward(inverse(z))`` is from z, at most."""
        cells = {n: _figure(lambda n=n: self._ask(spec, n, "round_trip", batch=batch)) for n in self.built}
        self._row(spec, ROUND_TRIP, batch, cells)

    def memory(self, spec: Spec, batch: int) -> None:
        """The peak of a training step, each in a new process."""
        self._row(spec, MEMORY, batch, {name: self._weighed(name, spec, batch) for name in self.built})

    def _weighed(self, name: str, spec: Spec, batch: int) -> Found:
        if name in (COMPILED, FLOOR):
            return {}
        process = Process(name, self.asked.threads, 4 * LIMIT_SECONDS)
        process.ask("build", model=spec.model, features=spec.features)
        found = _figure(lambda: process.ask("memory", batch=batch))
        process.end()
        return found

    def _row(self, spec: Spec, kind: str, batch: int, cells: Found) -> None:
        cells = {name: found for name, found in cells.items() if found}
        row = {"model": spec.model, "features": spec.features, "batch": batch, "kind": kind, "cells": cells}
        self.rows.append(row)
        print(f"{spec.model} D={spec.features} batch={batch} {kind}: {cell(cells.get(OURS), OURS, kind)}")

    def end(self) -> None:
        for process in self.processes.values():
            process.end()


def _figure(measure: Callable[[], float]) -> Found:
    try:
        return {"median": measure()}
    except Failed as error:
        return {"failed": str(error)}
