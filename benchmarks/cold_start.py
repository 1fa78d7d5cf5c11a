"""Seconds from the start of a new process to its first result: NSF, D = 64, batch 1024.

    python benchmarks/cold_start.py [--rounds 5] [--threads 2]

Everything is included: the interpreter, imports, building, compiling. Processes are interleaved; a first
round that fills the caches of files and bytecode does not count. Needs the environments of `make bench`.
Writes RESULTS/cold_start.json and RESULTS/cold_start.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

from peers.contestants import ENTRIES, OURS
from peers.machine import machine
from peers.processes import ROOT, environment, python, versions

KINDS = ("log_prob", "train", "sample")
TORCH = ("import torch", "")


def command(name: str, kind: str, threads: int) -> list[str]:
    if not kind:
        return [str(python("torch")), "-c", "import torch; print('done', flush=True)"]
    return [str(python(ENTRIES[name].venv)), "-m", "peers.cold", name, kind, str(threads)]


def seconds(name: str, kind: str, threads: int) -> float:
    """Until the process says that it has its result; its end is not waited for."""
    tick = time.perf_counter()
    process = subprocess.Popen(
        command(name, kind, threads),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(threads),
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    spent = time.perf_counter() - tick
    process.communicate()
    if said.strip() != "done":
        raise RuntimeError(f"{name} {kind} ended without a result")
    return spent


def markdown(found: dict) -> str:
    place = found["machine"]
    lines = [
        "# Cold start",
        "",
        "Seconds from the start of a process to its first result: NSF, D = 64, batch 1024, five layers, nets",
        f"of 64 x 64, 8 bins. Medians of {found['rounds']} new processes each, interleaved, and in brackets",
        f"least and greatest. {place['processor']}, {place['threads']} threads, {place['date']}.",
        "",
        "| | first result | seconds |",
        "| -- | -- | --: |",
    ]
    for row in found["rows"]:
        s = row["seconds"]
        lines.append(
            f"| {row['name']} | {row['kind']} | {statistics.median(s):.2f} ({s[0]:.2f}-{s[-1]:.2f}) |"
        )
    return "\n".join([*lines, "", ", ".join(f"{k} {v}" for k, v in found["versions"].items())]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--contestants", nargs="+", default=[OURS, "zuko", "FlowJAX"], choices=list(ENTRIES))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    asked = parser.parse_args()
    cells = [TORCH, *((name, kind) for kind in KINDS for name in asked.contestants), (OURS, "fit")]
    times: dict[tuple[str, str], list[float]] = {cell: [] for cell in cells}
    for i in range(asked.rounds + 1):
        for cell in cells:
            spent = seconds(*cell, asked.threads)
            if i:
                times[cell].append(spent)
    rows = [{"name": n, "kind": k or "import", "seconds": sorted(s)} for (n, k), s in times.items()]
    found = {"machine": machine(asked.threads), "rounds": asked.rounds, "rows": rows}
    found["versions"] = versions(asked.contestants, asked.threads)
    asked.results.mkdir(parents=True, exist_ok=True)
    (asked.results / "cold_start.json").write_text(json.dumps(found, indent=1) + "\n")
    (asked.results / "cold_start.md").write_text(markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
