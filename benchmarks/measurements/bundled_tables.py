"""Whole commands on every table of at least 300 rows that five packages bundle: what passes, what is refused.

    python benchmarks/measure.py bundled_tables --work FOLDER --seconds 6 [--tables 'r_[A-M]*'] [--keep]

`bundled_export.py` writes the tables as CSV, raw, where FOLDER has none. On each: fit, score, sample, a
question about the last column given the first, impute, report, every one as its user types it and in a
process of its own (a fork, so that 850 times six commands do not each wait for imports). ``ok``; ``refused``
with the line that says why, which is an outcome; ``TRACEBACK``, ``LINES`` (a refusal of several) and
``TIMEOUT`` are faults. What has been run stays in bundled_tables.jsonl of the results and is not run again,
but for faults with --again.
"""

from __future__ import annotations

import csv
import fnmatch
import os
import signal
import subprocess
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import kit

import diffeo.cli.app  # noqa: F401  each command's process starts with it
from measurements import Measurement

COMMANDS = {
    "fit": "fit {table} -o {model} --max-seconds {seconds:g} --seed 0",
    "score": "score {model} {table} -o scores.csv",
    "sample": "sample {model} -n 200 -o samples.csv --seed 0",
    "query": "query {model} --given {first}={value} --of {last} --n 200 --seed 0",
    "impute": "impute {model} {table} -o filled.csv --seed 0",
    "report": "report {model} {table} -o report.html",
}
FAULTS = ("TRACEBACK", "LINES", "TIMEOUT")


def run(words: list[str], folder: Path, limit: float) -> tuple[str, str, float]:
    """The outcome of one command, what it said, and its seconds."""
    start, log = time.monotonic(), folder / "said.txt"
    child = os.fork()
    if not child:
        _command(words, folder, log)
    done = 0
    while not done and time.monotonic() < start + limit:
        time.sleep(0.02)
        done, status = os.waitpid(child, os.WNOHANG)
    took = round(time.monotonic() - start, 1)
    said = log.read_text(errors="replace") if log.exists() else ""
    if not done:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "TIMEOUT", said[-300:], took
    lines = [line for line in said.splitlines() if line.strip()]
    last = " ".join(lines[-1:])
    if "No such command" in said:
        return "absent", "", took
    if "Traceback" in said or os.WIFSIGNALED(status):
        return "TRACEBACK", last, took
    if os.WEXITSTATUS(status):
        errors = [line for line in lines if "error" in line]
        return ("refused" if len(errors) == 1 else "LINES"), (errors or [last])[0][:400], took
    return "ok", "; ".join(line for line in lines if "Warning" in line), took


def _command(words: list[str], folder: Path, log: Path) -> None:
    """In the child: everything it says goes to a file, and nothing comes back."""
    code = 1
    try:
        os.chdir(folder)
        with log.open("wb") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        sys.argv = ["diffeo", *words]
        from diffeo.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:  # the parent's own clean-up is not the child's
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def question(samples: Path) -> dict[str, str]:
    """The first and the last column that the model has, and a value of the first."""
    with samples.open(newline="") as file:
        head, *drawn = csv.reader(file)
    return {"first": head[0], "last": head[-1], "value": next((r[0] for r in drawn if r[0]), "")}


def outcomes(table: Path, folder: Path, asked: Namespace) -> kit.Row:
    folder.mkdir(parents=True, exist_ok=True)
    with table.open(newline="") as file:
        head = next(csv.reader(file))
        row = {"table": table.stem, "rows": sum(1 for _ in file), "columns": len(head)}
    fields = {"table": table, "model": folder / "m.safetensors", "seconds": asked.seconds}
    for name, template in COMMANDS.items():
        if name == "query":
            fields |= question(folder / "samples.csv")
        words = [word.format(**fields) for word in template.split()]
        outcome, said, took = run(words, folder, asked.limit)
        row |= {name: outcome, f"{name} seconds": took}
        row |= (
            {f"{name} said": said.replace(f"{folder}/", "").replace(f"{table.parent}/", "")} if said else {}
        )
        if outcome != "ok" and name in ("fit", "sample"):
            break
    return row


def rows(asked: Namespace) -> Iterator[kit.Row]:
    folder = asked.work / "csv"
    if not folder.is_dir():
        subprocess.run(
            [kit.python("bundled"), kit.ROOT / "benchmarks" / "bundled_export.py", folder], check=True
        )
    store = kit.Store(asked.results / "bundled_tables.jsonl", "table")
    known = {row["table"]: row for row in store.read()}
    for table in sorted(folder.glob("*.csv")):
        if not any(fnmatch.fnmatch(table.stem, pattern) for pattern in asked.tables):
            continue
        old = known.get(table.stem)
        if old is None or (asked.again and any(old.get(name) in FAULTS for name in COMMANDS)):
            store.keep(old := outcomes(table.resolve(), (asked.work / "run").resolve(), asked))
        yield old


OPTIONS = {
    "--work": (Path("bundled-work"), "folder for tables and models"),
    "--tables": (["*"], "of these names"),
    "--limit": (120.0, "seconds after which a command is stopped"),
    "--again": (False, "also those with faults"),
}
HIDDEN = tuple(f"{name} {part}" for name in COMMANDS for part in ("said", "seconds"))
MEASUREMENT = Measurement(__doc__, rows, {"seconds": 6.0}, OPTIONS, HIDDEN, page=True)
