"""The measuring: contestants in turn, one at a time."""

from __future__ import annotations

import math
import statistics
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from peers.libraries import COMPILED, ENTRIES, FLOOR, OURS
from peers.pages import MEMORY, ROUND_TRIP, TIMED
from peers.processes import Failed, Process
from peers.spec import Spec, Unsupported

CALLS_SECONDS = 0.02
"""A timing lasts at least so long: fast calls are repeated within it."""
REST_SECONDS = 0.03
"""Between two contestants: threads of the one before still spin for a while."""
SHOWN = {
    **dict.fromkeys(TIMED, lambda seconds: f"{1e3 * seconds:.3f} ms"),
    MEMORY: lambda mb: f"{mb:.3f} MB",
    ROUND_TRIP: lambda error: f"{error:.1e}",
}
LIMIT_SECONDS = 120.0
"""A process that is silent so long, and as long as a call may take, is ended."""


class Bench:
    """All contestants' processes, and what was found."""

    def __init__(self, names: list[str], asked: Namespace):
        self.names, self.asked = names, asked
        limit = LIMIT_SECONDS + asked.skip_seconds
        self.processes = {name: Process(name, asked.threads, limit) for name in names}
        self.flows: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.built: list[str] = []

    def build(self, spec: Spec) -> None:
        """Every contestant builds the flow; who cannot says why and sits out."""
        self.built = []
        flow: dict[str, Any] = {"model": spec.model, "features": spec.features}
        flow |= {"expected": spec.parameters, "contestants": {}}
        for name in self.names:
            if spec.model not in ENTRIES[name].builders:
                continue
            try:
                flow["contestants"][name] = self.processes[name].ask(
                    "build", model=spec.model, features=spec.features
                )
                self.built.append(name)
            except (Unsupported, Failed) as error:
                flow["contestants"][name] = {"missing": str(error)}
        self.flows.append(flow)

    def time(self, spec: Spec, kind: str, batch: int) -> None:
        """One row of one table."""
        cells: dict[str, dict[str, Any]] = {}
        rounds: dict[str, int] = {}
        for name in self.built:
            if name == COMPILED and (kind == "sample" or batch not in self.asked.compiled_batch):
                continue
            cells[name] = self._hopeless(spec, kind, batch, name) or self._prepared(spec, kind, batch, name)
            rounds[name] = cells[name].pop("rounds", 0)
        for i in range(max(rounds.values(), default=0)):
            turn = [name for name in rounds if rounds[name] > i]
            turn = turn[i % len(turn) :] + turn[: i % len(turn)]
            for name in turn:
                time.sleep(REST_SECONDS)
                try:
                    spent = self._ask(spec, name, "run", calls=cells[name]["calls"])
                    cells[name]["seconds"].append(spent)
                except Failed as error:
                    cells[name], rounds[name] = {"failed": str(error)}, 0
        for cell in cells.values():
            if "seconds" in cell:
                cell["seconds"].sort()
                cell["median"] = statistics.median(cell["seconds"])
        self._row(spec, kind, batch, cells)

    def _prepared(self, spec: Spec, kind: str, batch: int, name: str) -> dict[str, Any]:
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

    def _hopeless(self, spec: Spec, kind: str, batch: int, name: str) -> dict[str, Any] | None:
        """A cell that smaller batches rule out: one failed, or their line rises too high."""
        known = {
            row["batch"]: row["cells"][name]
            for row in self.rows
            if (row["model"], row["features"], row["kind"]) == (spec.model, spec.features, kind)
            and name in row["cells"]
        }
        for cell in known.values():
            if "failed" in cell:
                return {"failed": cell["failed"]}
        times = sorted((b, cell.get("median") or cell["above"]) for b, cell in known.items())
        if not times:
            return None
        (b1, t1), (b0, t0) = times[-1], times[max(0, len(times) - 2)]
        slope = 0.0 if b1 == b0 else max(0.0, t1 - t0) / (b1 - b0)
        above = t1 + slope * (batch - b1)
        return {"above": above} if above > self.asked.skip_seconds else None

    def round_trip(self, spec: Spec, batch: int) -> None:
        """How far ``forward(inverse(z))`` is from z, at most."""
        cells: dict[str, dict[str, Any]] = {}
        for name in self.built:
            try:
                cells[name] = {"median": self._ask(spec, name, "round_trip", batch=batch)}
            except Failed as error:
                cells[name] = {"failed": str(error)}
        self._row(spec, ROUND_TRIP, batch, cells)

    def memory(self, places: list[tuple[Spec, int]]) -> None:
        """The peak of a training step, each in a new process; time does not matter, so two run at once."""
        able = {
            (flow["model"], flow["features"]): [
                name
                for name, built in flow["contestants"].items()
                if "missing" not in built and name not in (COMPILED, FLOOR)
            ]
            for flow in self.flows
        }
        cells = {
            (spec, batch): {name: {} for name in able[spec.model, spec.features]} for spec, batch in places
        }

        def measure(place: tuple[tuple[Spec, int], str]) -> None:
            (spec, batch), name = place
            process = Process(name, self.asked.threads, 4 * LIMIT_SECONDS)
            try:
                process.ask("build", model=spec.model, features=spec.features)
                cells[spec, batch][name] = {"median": process.ask("memory", batch=batch)}
            except (Unsupported, Failed) as error:
                cells[spec, batch][name] = {"failed": str(error)}
            finally:
                process.end()

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(measure, [(place, name) for place in cells for name in cells[place]]))
        for (spec, batch), found in cells.items():
            self._row(spec, MEMORY, batch, found)

    def _row(self, spec: Spec, kind: str, batch: int, cells: dict[str, Any]) -> None:
        row = {"model": spec.model, "features": spec.features, "batch": batch, "kind": kind, "cells": cells}
        self.rows.append(row)
        ours = cells.get(OURS, {}).get("median")
        shown = "" if ours is None else SHOWN[kind](ours)
        print(f"{spec.model} D={spec.features} batch={batch} {kind}: diffeo {shown}", flush=True)

    def end(self) -> None:
        for process in self.processes.values():
            process.end()
