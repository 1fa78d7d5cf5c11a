"""What the benchmarks share: options, the machine, clocks and memory, rows that are kept, Markdown.

It needs no PyTorch, so that processes of other environments can use it too.
"""

from __future__ import annotations

import datetime
import gc
import json
import math
import multiprocessing
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ROOT / "docs" / "results"
Row = dict[str, Any]

# -- options ------------------------------------------------------------------------------------------

USUAL: dict[str, tuple[Any, str]] = {
    "--data": (os.environ.get("DIFFEO_DATA"), "folder of the data; default: the variable DIFFEO_DATA"),
    "--seconds": (60.0, "of each fit"),
    "--seeds": ([0], "a run for each"),
    "--seed": (0, "of the run"),
    "--rounds": (5, "of timings, by turns"),
    "--threads": (1, "of each process"),
    "--results": (RESULTS, "folder for rows that are kept"),
    "--pages": (PAGES, "folder for pages made of them"),
}


class Options(ArgumentParser):
    """Options that take their types from their defaults; the help is the script's docstring.

    ``usual`` are options that mean the same in every benchmark, each with the script's own default or, for
    ``...``, the common one.
    """

    def __init__(self, doc: str | None, **usual: Any):
        super().__init__(description=doc, formatter_class=RawDescriptionHelpFormatter)
        for name, default in usual.items():
            common, help = USUAL[f"--{name}"]
            self.option(f"--{name}", common if default is ... else default, help)

    def option(self, name: str, default: Any = None, help: str = "", **rest: Any) -> Options:
        """Add one: of a sequence's elements where the default is one, a switch where it is False."""
        several = isinstance(default, (list, tuple))
        one = next(iter(default), "") if several else default
        if isinstance(default, bool):
            rest["action"] = "store_true"
        else:
            rest.setdefault("type", str if one is None else type(one) if not isinstance(one, Path) else Path)
            rest |= {"nargs": "+"} if several and "nargs" not in rest else {}
        self.add_argument(name, default=default, help=help, **rest)
        return self

    def ask(self, words: Sequence[str] | None = None) -> Namespace:
        """The options given; PyTorch has as many threads as were asked for."""
        asked = self.parse_args(words)
        if "threads" in asked:
            import torch

            torch.set_num_threads(asked.threads)
        return asked

    @property
    def names(self) -> set[str]:
        return set(self._option_string_actions)


def folder(asked: Namespace, part: str) -> Path:
    """The data's folder ``part``; without it the benchmark says so and stops."""
    if asked.data is None:
        sys.exit("this benchmark needs real data: give --data DIR or set DIFFEO_DATA.")
    found = Path(asked.data) / part
    if not found.is_dir():
        sys.exit(f"this benchmark needs {found}, which is not there.")
    return found


def settings(asked: Namespace) -> Row:
    """The options without folders, as JSON takes them."""
    found = {k: v for k, v in vars(asked).items() if k != "data" and not isinstance(v, Path)}
    return json.loads(json.dumps(found))


def tables(asked: Namespace, name: str) -> list[Any]:
    """The training and the test part of a table that models are compared on."""
    import diffeo

    parts = (folder(asked, "compare") / f"{name}_{part}.parquet" for part in ("train", "test"))
    return [diffeo.Table.read(path) for path in parts]


# -- where it ran -------------------------------------------------------------------------------------


def machine(threads: int) -> Row:
    """Processor, cores, threads used, system and date."""
    return {
        "processor": processor(),
        "cores": os.cpu_count() or 0,
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.date.today().isoformat(),
    }


def processor() -> str:
    """The processor's model name, with family and model, as the name alone may say little."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    name = found.get("model name", platform.processor())
    return f"{name}, family {found.get('cpu family', '?')}, model {found.get('model', '?')}"


def pin(threads: int) -> None:
    """Keep this process, and every thread pool it makes, on so many cores; where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def provenance(script: str, asked: Namespace, threads: int = 1) -> Row:
    """What a kept row depends on: command, machine and versions; folders of this machine are left out."""
    import diffeo
    from diffeo.train.report import versions

    words, paths = sys.argv[1:], ("--data", "--results", "--pages")
    shown = [w for i, w in enumerate(words) if w not in paths and (not i or words[i - 1] not in paths)]
    shown += ["--data", "DIR"] if getattr(asked, "data", None) else []
    return {
        "command": shlex.join(["python", f"benchmarks/{script}", *shown]),
        "machine": machine(threads),
        "versions": {**versions(), "kernels": diffeo.kernels.describe().removeprefix("kernels: ")},
    }


def made_by(rows: Iterable[Row], about: Callable[[Row], str], named: Callable[[list[Row]], str]) -> list[str]:
    """A paragraph for each command and machine: the command, which rows it made, what ``about`` says."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        place, versions = row["machine"], ", ".join(f"{k} {v}" for k, v in row["versions"].items())
        where = f"{place['processor']}, {place['cores']} cores, one thread, {place['system']}"
        groups.setdefault((row["command"], f"{about(row)}{where}, {place['date']}. {versions}."), []).append(
            row
        )
    return [f"    {command}\n\n{named(own)}{made}" for (command, made), own in groups.items()]


# -- clocks and memory --------------------------------------------------------------------------------


def by_turns(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 2,
    fewer: Mapping[str, int] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each, sorted, timed in turns so that what else the machine does slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(-warm_up, rounds):
        for name, run in runs.items():
            if i < (fewer or {}).get(name, rounds):
                start = clock()
                run()
                times[name] += [clock() - start] if i >= 0 else []
    return {name: sorted(taken) for name, taken in times.items()}


class Peak:
    """By how many MB (2^20 bytes) a block of code pushes the peak above what the process held before."""

    mb: float

    def __enter__(self) -> Peak:
        gc.collect()
        self._before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        return self

    def __exit__(self, *_: object) -> None:
        self.mb = _resident("VmHWM") - self._before


def _resident(field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) / 1024


def mean_and_error(values: Any, digits: int = 4) -> Row:
    """The mean of a test score and its standard error."""
    values = values.reshape(-1)
    error = float(values.std()) / math.sqrt(len(values))
    return {"test": round(float(values.mean()), digits), "standard_error": round(error, digits)}


def fitted(report: Any) -> Row:
    """What a fit's report says of its course."""
    course = {"steps": report.steps, "best_step": report.best_step, "stopped": report.stopped}
    return {**course, "seconds": round(report.seconds, 1)}


def fields(preset: Any) -> Row:
    """Of a preset, as a model's file has them."""
    from diffeo.io.recipes import to_recipe

    return to_recipe(preset)["fields"]


def size(module: Any) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in module.parameters())


# -- other processes ----------------------------------------------------------------------------------


def python(venv: str) -> Path:
    """An environment's interpreter; without it the benchmark says so and stops."""
    found = ROOT / ".bench" / venv / "bin" / "python"
    if not found.exists():
        sys.exit(f"{found.relative_to(ROOT)} is not there; `make .bench/{venv}/.installed` makes it.")
    return found


def environment(threads: int) -> dict[str, str]:
    """This process's, with the number of threads and without compiled kernels of earlier runs."""
    paths = [str(ROOT / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
    counts = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL")}
    uncached = {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    return {**os.environ, **counts, **uncached, "PYTHONPATH": os.pathsep.join(paths)}


def answer(command: Sequence[object], threads: int = 1, **variables: str) -> Any:
    """What a process says in its last line, as JSON."""
    env = {**environment(threads), **variables}
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True, check=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def in_own_process(function: Callable[..., Row], asked: Namespace, *arguments: Any) -> Row:
    """A module's function in a new process, whose memory nothing has touched yet."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, pin, (asked.threads,)) as pool:
        return pool.submit(function, asked, *arguments).result()


# -- files --------------------------------------------------------------------------------------------


class Store:
    """Rows in a file, one a line of JSON. A row replaces the one of the same key; all others stay."""

    def __init__(self, path: Path, *key: str):
        self.path, self.names = path, key

    def key(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.names)

    def read(self) -> list[Row]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def keep(self, row: Row) -> None:
        """Put a row in its place, or at the end where rows have no key."""
        rows = [*self.read(), row]
        if self.names:
            known = {self.key(old): old for old in rows}
            rows = [known[key] for key in sorted(known)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text("".join(json.dumps(row) + "\n" for row in rows))
        new.replace(self.path)


def write(folder: Path, name: str, found: Any, page: str) -> None:
    """What was found as JSON, and its page if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if page:
        (folder / f"{name}.md").write_text(page, encoding="utf-8")


# -- Markdown -----------------------------------------------------------------------------------------


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]], align: str = "--:") -> str:
    """A table whose first column is text and whose others are figures."""
    rule = ["---" if i == 0 else align for i in range(len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])


def filled(text: str, blocks: Mapping[str, str]) -> str:
    """A page whose parts between ``<!-- NAME -->`` and ``<!-- end -->`` are these."""
    for name, made in blocks.items():
        block = rf"(<!-- {name} -->\n\n).*?(\n\n<!-- end -->)"
        text = re.sub(block, lambda m, made=made: m[1] + made + m[2], text, flags=re.S)
    return text


def fill(path: Path, blocks: Mapping[str, str]) -> None:
    """Write the parts that were measured into a page, if there is one."""
    if path.exists():
        path.write_text(filled(path.read_text(encoding="utf-8"), blocks), encoding="utf-8")


def shown(rows: Sequence[Row], hidden: Sequence[str] = ()) -> str:
    """Rows as a table; a list of figures is its median and, in brackets, least and greatest."""
    head = list(dict.fromkeys(name for row in rows for name in row if name not in hidden))
    return markdown(head, [[cell(row.get(name)) for name in head] for row in rows])


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{k} {cell(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        middle, least, greatest = statistics.median(value), min(value), max(value)
        return f"{cell(middle)} ({cell(least)}-{cell(greatest)})"
    if isinstance(value, float) and value:
        whole = f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3f}"
        return whole if abs(value) >= 1e-2 else f"{value:.2g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
