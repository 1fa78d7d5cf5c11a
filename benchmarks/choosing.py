"""Every preset of vectors: speed, test nats after equal time, and what its fields change.

    python benchmarks/choosing.py speed
    python benchmarks/choosing.py quality sweep rows --data DIR [--seconds 60] [--presets NSF MAF ...]
    python benchmarks/choosing.py

``speed``: ``log_prob``, a training step and ``sample`` at batch 1024, for 8 and 64 columns, on flows that
were trained a little so that solvers have work to do; all presets by turns. ``quality``: ``diffeo.fit`` at
each preset's defaults, so many seconds on two real tables, then the mean log-density of their test rows,
beside a Gaussian and a mixture of 20. ``sweep``: NSF on one of them with other sizes. ``rows``: few training
rows. ``special``: a lone column, and heavy tails, beside their exact densities.
Every second here is one of CPU time on one thread, so that what else runs on the machine costs nobody much.
Every result is a row of RESULTS/choosing.jsonl as soon as it is there; runs that have one are not done again
(``--again`` does them). From all rows PAGES/choosing.md is written.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import choosing_pages as pages
import data
import torch
from choosing_pages import Row
from peers.machine import machine
from torch import Tensor
from torch.distributions import Normal, StudentT

import diffeo
from diffeo import Flow
from diffeo.contracts import Projectable
from diffeo.errors import NotConverged
from diffeo.objectives import Batch
from diffeo.presets import PRESETS, VectorPreset, choose
from diffeo.tables.baselines import gaussian_log_prob, mixture_log_prob
from diffeo.train import loop
from diffeo.train.loop import objective_of, recipe_of
from diffeo.train.optimizer import FlatAdamW
from diffeo.train.report import versions

ROOT = Path(__file__).parents[1]
PRESETS = [name for name, kind in PRESETS.items() if issubclass(kind, VectorPreset)]
PARTS = ("speed", "quality", "sweep", "rows", "special")
BATCH = 1024
CALLS_SECONDS = 0.02
"""A timing lasts at least so long: fast calls are repeated within it."""
SKIP_SECONDS = 5.0
"""A call that takes longer is not timed again."""
CELL_SECONDS = 20.0
"""All timings of one cell."""
WARM_STEPS, WARM_SECONDS = 200, 5.0
TABLES = ("power", "protein")
SWEPT = {"layers": (2, 10), "hidden": (64, 256), "bins": (4, 16), "blocks": (1, 3)}
FEW = (200, 500, 1000, 3000)
FEW_TABLES = ("protein", "kin8nm")
SPECIAL_ROWS, SPECIAL_FRESH = 20_000, 5_000


# -- speed --------------------------------------------------------------------------------------------


def chain_rows(features: int, rows: int = 20_000) -> Tensor:
    """Rows with bends: each column is a sine of the one before, and noise."""
    noise = torch.randn(rows, features, generator=torch.Generator().manual_seed(features))
    columns = [noise[:, 0]]
    for i in range(1, features):
        columns.append(0.7 * torch.sin(2 * columns[-1]) + 0.5 * noise[:, i])
    return torch.stack(columns, 1)


@dataclass
class Cell:
    """One call of one preset, and its timings."""

    preset: str
    features: int
    kind: str
    parameters: int
    call: Callable[[], Any]
    first: float = 0.0
    seconds: list[float] = field(default_factory=list)

    def time(self, calls: int) -> float:
        tick = time.process_time()
        for _ in range(calls):
            self.call()
        return (time.process_time() - tick) / calls

    @property
    def calls(self) -> int:
        return max(1, int(CALLS_SECONDS / self.first))

    def rounds(self, most: int) -> int:
        """How many it can afford: none where a call is too long."""
        if self.first > SKIP_SECONDS:
            return 0
        return max(3, min(most, int(CELL_SECONDS / (self.calls * self.first))))

    def row(self) -> Row:
        row: Row = {"part": "speed", "preset": self.preset, "where": f"{self.features} {self.kind}"}
        row |= {"features": self.features, "kind": self.kind, "batch": BATCH, "parameters": self.parameters}
        if not self.seconds:
            return {**row, "skipped": f"a call takes {self.first:.1f} s"}
        ms = sorted(1e3 * s for s in self.seconds)
        middle = statistics.median(ms)
        return {**row, "ms": _round(middle), "low": _round(ms[0]), "high": _round(ms[-1]), "rounds": len(ms)}


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def training_step(flow: Flow, x: Tensor) -> Callable[[], Any]:
    """What ``fit`` does with a batch."""
    recipe, objective = recipe_of(flow), objective_of(flow)
    params = [p for p in flow.parameters() if p.requires_grad]
    mean = [p.detach().clone() for p in params]
    optimizer = FlatAdamW(params, mean, recipe.weight_decay, recipe.clip)
    projected = [m for m in flow.modules() if isinstance(m, Projectable)]
    batch = Batch(x, None, None, torch.arange(len(x)))

    def step() -> None:
        flow.train()
        optimizer.zero_grad()
        objective(flow, batch).backward()
        optimizer.gather()
        optimizer.step(0.0, recipe.ema)  # the same work at every call, on the same flow
        with torch.no_grad():
            for module in projected:
                module.project_()

    return step


def cells_of(preset: str, features: int) -> list[Cell]:
    """A preset's flow, trained a little, and its three calls, each made once."""
    rows = chain_rows(features)
    torch.manual_seed(0)
    flow = PRESETS[preset](features=features).build()  # type: ignore[call-arg]
    diffeo.fit(flow, rows, max_steps=WARM_STEPS, max_seconds=WARM_SECONDS)
    x, generator = rows[:BATCH], torch.Generator().manual_seed(0)

    def log_prob() -> None:
        flow.eval()
        with torch.no_grad():
            flow.log_prob(x)

    def sample() -> None:
        flow.eval()
        with torch.no_grad():
            flow.sample(BATCH, generator=generator)

    parameters = sum(p.numel() for p in flow.parameters())
    found = []
    for kind, call in {"log_prob": log_prob, "sample": sample, "step": training_step(flow, x)}.items():
        cell = Cell(preset, features, kind, parameters, call)
        cell.first = cell.time(1)
        if cell.first < SKIP_SECONDS / 5:  # what is made at the first call does not count
            cell.first = cell.time(1)
        found.append(cell)
        print(f"{preset} D={features} {kind}: {1e3 * cell.first:.2f} ms", flush=True)
    return found


def speed(presets: list[str], columns: list[int], rounds: int) -> Iterator[Row]:
    """All cells by turns, each round beginning at another one."""
    cells = [cell for features in columns for preset in presets for cell in cells_of(preset, features)]
    for i in range(rounds):
        turn = [cell for cell in cells if cell.rounds(rounds) > i]
        start = i * len(turn) // rounds
        for cell in turn[start:] + turn[:start]:
            cell.seconds.append(cell.time(cell.calls))
        print(f"round {i + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", flush=True)
    yield from (cell.row() for cell in cells)


# -- quality ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One fit: what it is called, the flow, and the rows."""

    part: str
    preset: str
    where: str
    table: str
    fields: dict[str, Any] = field(default_factory=dict)
    rows: int | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.part, self.preset, self.where


def jobs_of(parts: list[str], presets: list[str], tables: list[str], seconds: float) -> list[Job]:
    found = []
    if "quality" in parts:
        names = ["Gaussian", "mixture", *presets]
        found += [Job("quality", name, table, table) for name in names for table in tables]
    if "sweep" in parts:
        swept: list[dict[str, Any]] = [{}, *({name: v} for name, values in SWEPT.items() for v in values)]
        for fields in swept:
            found.append(Job("sweep", "NSF", pages.setting(fields, seconds), "protein", fields))
    if "rows" in parts:
        for table, n in product(FEW_TABLES, FEW):
            chosen = choose(n, 10)[0]
            small = {k: getattr(chosen, k) for k in ("layers", "hidden", "blocks", "dropout", "bins")}
            for name in ("Gaussian", "mixture", "NSF", "Tabular"):
                fields = small if name == "Tabular" else {}
                found.append(Job("rows", name, f"{table} {n}", table, fields, n))
    if "special" in parts:
        names = ["Gaussian", "mixture", *presets]
        found += [Job("special", name, where, where) for where in SPECIAL for name in names]
    return found


def two_bumps(generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """A lone column: a wide normal and a narrow one; and its log-density."""
    narrow = torch.rand(SPECIAL_ROWS + SPECIAL_FRESH, 1, generator=generator, dtype=torch.float64) < 0.3
    z = torch.randn(SPECIAL_ROWS + SPECIAL_FRESH, 1, generator=generator, dtype=torch.float64)
    x = torch.where(narrow, 2 + 0.2 * z, z)
    parts = [Normal(0.0, 1.0).log_prob(x) + math.log(0.7), Normal(2.0, 0.2).log_prob(x) + math.log(0.3)]
    return x, torch.logaddexp(*parts).squeeze(-1)


def heavy_tails(generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Two columns of Student's t with 2 degrees of freedom, the second's scale that of the first."""
    uniform = torch.rand(SPECIAL_ROWS + SPECIAL_FRESH, 2, generator=generator, dtype=torch.float64)
    a = 2 * uniform - 1
    t = a * (2 / (1 - a.square())).sqrt()  # the quantiles of t with 2 degrees of freedom
    scale = 0.5 + t[:, 0].abs()
    x = torch.stack([t[:, 0], scale * t[:, 1]], 1)
    return x, StudentT(2.0).log_prob(t).sum(1) - scale.log()


SPECIAL = {"one column": two_bumps, "heavy tails": heavy_tails}


def read(folder: Path, name: str) -> Tensor:
    return torch.from_numpy(diffeo.Table.read(folder / f"{name}.parquet").values).float()


def score(log_prob: Tensor, exact: Tensor | None = None) -> Row:
    """Mean, its standard error, and how bad the worst row is; less the exact density where it is known."""
    values = log_prob.double() - (0.0 if exact is None else exact)
    return {
        "test": round(values.mean().item(), 4),
        "standard_error": round(values.std().item() / len(values) ** 0.5, 4),
        "median": round(values.median().item(), 4),
        "worst": round(values.min().item(), 2),
    }


def fitted(job: Job, folder: Path, seconds: float, seed: int) -> Row:
    """A fit, and its score on the test rows."""
    exact = None
    if job.table in SPECIAL:
        x, exact = SPECIAL[job.table](torch.Generator().manual_seed(seed))
        train, test, exact = x.float()[:SPECIAL_ROWS], x.float()[SPECIAL_ROWS:], exact[SPECIAL_ROWS:]
    else:
        train, test = read(folder, f"{job.table}_train"), read(folder, f"{job.table}_test")
    if job.rows is not None:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        train = train[order[: job.rows]]
    row: Row = {"table": job.table, "rows": len(train), "fields": job.fields, "seed": seed}
    if job.preset in ("Gaussian", "mixture"):
        tick = time.process_time()
        log_prob = gaussian_log_prob if job.preset == "Gaussian" else mixture_log_prob
        return {**row, **score(torch.from_numpy(log_prob(train, test)), exact), "seconds": _since(tick)}
    torch.manual_seed(seed)
    flow = PRESETS[job.preset](features=train.shape[1], **job.fields).build()  # type: ignore[call-arg]
    report = diffeo.fit(flow, train, max_seconds=seconds, seed=seed)
    with torch.no_grad():
        tick = time.process_time()
        found = score(torch.cat([flow.log_prob(part) for part in test.split(BATCH)]), exact)
        scoring = (time.process_time() - tick) / len(test)
    row |= found | drawn(flow, seed)
    return {
        **row,
        "valid": round(report.valid, 4),
        "steps": report.steps,
        "best_step": report.best_step,
        "stopped": report.stopped,
        "skipped_steps": report.skipped,
        "seconds": round(report.seconds, 1),
        "score_us": _round(1e6 * scoring),
        "parameters": sum(p.numel() for p in flow.parameters()),
        "budget": seconds,
    }


@torch.no_grad()
def drawn(flow: Flow, seed: int) -> Row:
    """The time of a thousand samples; a flow whose inverse fails says so."""
    try:
        flow.sample(BATCH, generator=torch.Generator().manual_seed(seed))
        tick = time.process_time()
        x = flow.sample(BATCH, generator=torch.Generator().manual_seed(seed + 1))
    except NotConverged as error:
        return {"sample_failed": str(error)}
    each = (time.process_time() - tick) / BATCH
    lost = int((~x.isfinite().all(-1)).sum())
    return {"sample_us": _round(1e6 * each), "lost_samples": lost}


def _since(tick: float) -> float:
    return round(time.process_time() - tick, 1)


# -- the run ------------------------------------------------------------------------------------------


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; none: the page")
    data.add_arguments(parser)
    parser.add_argument("--presets", nargs="+", default=PRESETS, choices=PRESETS)
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES, help="of quality")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each fit")
    parser.add_argument("--columns", type=int, nargs="+", default=[8, 64], help="of the flows of speed")
    parser.add_argument("--rounds", type=int, default=15, help="of timings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="also what there is a row of")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--pages", type=Path, default=ROOT / "docs" / "results")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"there is no part {sorted(unknown)[0]}; there are {', '.join(PARTS)}.")
    return asked


def main() -> None:
    asked = options()
    torch.set_num_threads(1)
    loop.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[assignment]
    kept = asked.results / "choosing.jsonl"
    provenance = {
        "command": shlex.join(["python", "benchmarks/choosing.py", *_shown(sys.argv[1:])]),
        "machine": machine(1),
        "versions": {**versions(), "kernels": diffeo.kernels.describe().removeprefix("kernels: ")},
    }
    failed = []
    if "speed" in asked.parts:
        for row in speed(asked.presets, asked.columns, asked.rounds):
            pages.keep_row(kept, {**row, **provenance})
    jobs = jobs_of(asked.parts, asked.presets, asked.tables, asked.seconds)
    folder = data.folder(asked, "compare") if {j.table for j in jobs} - set(SPECIAL) else Path()
    for job in jobs:
        if not asked.again and job.key in {pages.key(row) for row in pages.read_rows(kept)}:
            continue
        row: Row = dict(zip(("part", "preset", "where"), job.key, strict=True))
        try:
            row |= fitted(job, folder, asked.seconds, asked.seed)
        except Exception as error:  # the others still run
            failed.append(f"{job}: {type(error).__name__}: {error}")
            print(failed[-1], flush=True)
            continue
        pages.keep_row(kept, {**row, **provenance})
        print({k: row[k] for k in ("part", "preset", "where", "test", "seconds")}, flush=True)
    if rows := pages.read_rows(kept):
        pages.write_page(asked.pages / "choosing.md", rows)
    if failed:
        sys.exit("failed:\n" + "\n".join(failed))


def _shown(words: list[str]) -> list[str]:
    """The command without this machine's folders."""
    paths = ("--data", "--results", "--pages")
    kept = [w for i, w in enumerate(words) if w not in paths and words[i - 1] not in paths]
    return [*kept, "--data", "DIR"] if "--data" in words or set(words) & set(PARTS[1:4]) else kept


if __name__ == "__main__":
    main()
