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

import math
import os
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import choosing_pages as pages
import kit
import torch
from kit import Row
from torch import Tensor
from torch.distributions import Normal, StudentT

import diffeo
from diffeo import Flow
from diffeo.contracts import Projectable
from diffeo.errors import NotConverged
from diffeo.objectives import Batch
from diffeo.presets import PRESETS, VectorPreset, choose
from diffeo.tables.gaussians import gaussian_log_prob, mixture_log_prob
from diffeo.train.loop import objective_of
from diffeo.train.optimizer import FlatAdamW, OptimizerSettings

VECTORS = [name for name, kind in PRESETS.items() if issubclass(kind, VectorPreset)]
PLAIN = {"Gaussian": gaussian_log_prob, "mixture": mixture_log_prob}
PARTS = ("speed", "quality", "sweep", "rows", "special")
BATCH = 1024
CLOCK = time.process_time
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

    row: Row
    call: Callable[[], Any]
    first: float = 0.0
    seconds: list[float] = field(default_factory=list)

    def time(self, calls: int = 1) -> float:
        tick = time.process_time()
        for _ in range(calls):
            self.call()
        return (time.process_time() - tick) / calls

    @property
    def calls(self) -> int:
        return max(1, int(CALLS_SECONDS / self.first))

    def rounds(self, most: int) -> int:
        """How many it can afford: none where a call is too long."""
        affordable = max(3, min(most, int(CELL_SECONDS / (self.calls * self.first))))
        return affordable if self.first <= SKIP_SECONDS else 0

    def found(self) -> Row:
        if not self.seconds:
            return {**self.row, "skipped": f"a call takes {self.first:.1f} s"}
        ms = sorted(1e3 * s for s in self.seconds)
        times = {"ms": statistics.median(ms), "low": ms[0], "high": ms[-1]}
        return {**self.row, **{name: _round(t) for name, t in times.items()}, "rounds": len(ms)}


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def training_step(flow: Flow, x: Tensor) -> Callable[[], Any]:
    """What ``fit`` does with a batch."""
    settings, objective = OptimizerSettings(), objective_of(flow)
    params = [p for p in flow.parameters() if p.requires_grad]
    mean = [p.detach().clone() for p in params]
    optimizer = FlatAdamW(params, mean, settings.weight_decay, settings.clip)
    projected = [m for m in flow.modules() if isinstance(m, Projectable)]
    batch = Batch(x, None, None, torch.arange(len(x)))

    def step() -> None:
        flow.train()
        optimizer.zero_grad()
        objective(flow, batch).backward()
        optimizer.gather()
        optimizer.step(0.0, settings.ema)  # the same work at every call, on the same flow
        with torch.no_grad():
            for module in projected:
                module.project_()

    return step


def cells_of(preset: str, features: int) -> Iterator[Cell]:
    """A preset's flow, trained a little, and its three calls, each made once."""
    rows = chain_rows(features)
    torch.manual_seed(0)
    flow = PRESETS[preset](features=features).build()  # type: ignore[call-arg]
    diffeo.fit(flow, rows, max_steps=WARM_STEPS, max_seconds=WARM_SECONDS, clock=CLOCK)
    x, generator = rows[:BATCH], torch.Generator().manual_seed(0)
    log_prob, sample = torch.no_grad()(flow.log_prob), torch.no_grad()(flow.sample)
    calls = {
        "log_prob": lambda: flow.eval() and log_prob(x),
        "sample": lambda: flow.eval() and sample(BATCH, generator=generator),
        "step": training_step(flow, x),
    }
    row: Row = {"part": "speed", "preset": preset, "features": features}
    row |= {"batch": BATCH, "parameters": kit.size(flow)}
    for kind, call in calls.items():
        cell = Cell({**row, "kind": kind, "where": f"{features} {kind}"}, call)
        cell.first = cell.time()
        if cell.first < SKIP_SECONDS / 5:  # what is made at the first call does not count
            cell.first = cell.time()
        print(f"{preset} D={features} {kind}: {1e3 * cell.first:.2f} ms", flush=True)
        yield cell


def speed(presets: list[str], columns: list[int], rounds: int) -> Iterator[Row]:
    """All cells by turns, each round beginning at another one."""
    cells = [cell for features in columns for preset in presets for cell in cells_of(preset, features)]
    for i in range(rounds):
        turn = [cell for cell in cells if cell.rounds(rounds) > i]
        start = i * len(turn) // rounds
        for cell in turn[start:] + turn[:start]:
            cell.seconds.append(cell.time(cell.calls))
        print(f"round {i + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", flush=True)
    yield from (cell.found() for cell in cells)


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


def jobs_of(parts: list[str], presets: list[str], tables: list[str], seconds: float) -> list[Job]:
    found = []
    if "quality" in parts:
        names = [*PLAIN, *presets]
        found += [Job("quality", name, table, table) for name in names for table in tables]
    if "sweep" in parts:
        swept: list[dict[str, Any]] = [{}, *({name: v} for name, values in SWEPT.items() for v in values)]
        for fields in swept:
            found.append(Job("sweep", "NSF", pages.setting(fields, seconds), "protein", fields))
    if "rows" in parts:
        for table, n in product(FEW_TABLES, FEW):
            chosen = choose(n, 10)[0]
            small = {k: getattr(chosen, k) for k in ("layers", "hidden", "blocks", "dropout", "bins")}
            for name in (*PLAIN, "NSF", "Tabular"):
                fields = small if name == "Tabular" else {}
                found.append(Job("rows", name, f"{table} {n}", table, fields, n))
    if "special" in parts:
        names = [*PLAIN, *presets]
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


def rows_of(job: Job, asked: Namespace) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows to train and to test on, and the exact log-density of the latter where it is known."""
    generator = torch.Generator().manual_seed(asked.seed)
    if job.table in SPECIAL:
        x, exact = SPECIAL[job.table](generator)
        return x.float()[:SPECIAL_ROWS], x.float()[SPECIAL_ROWS:], exact[SPECIAL_ROWS:]
    train, test = (torch.from_numpy(table.values).float() for table in kit.tables(asked, job.table))
    if job.rows is not None:
        train = train[torch.randperm(len(train), generator=generator)[: job.rows]]
    return train, test, None


def score(log_prob: Tensor, exact: Tensor | None = None) -> Row:
    """Mean, its standard error, and how bad the worst row is; less the exact density where it is known."""
    values = log_prob.double() - (0.0 if exact is None else exact)
    extremes = {"median": round(values.median().item(), 4), "worst": round(values.min().item(), 2)}
    return {**kit.mean_and_error(values), **extremes}


def fitted(job: Job, asked: Namespace) -> Row:
    """A fit, and its score on the test rows."""
    train, test, exact = rows_of(job, asked)
    row: Row = {"table": job.table, "rows": len(train), "fields": job.fields, "seed": asked.seed}
    tick = time.process_time()
    if job.preset in PLAIN:
        row |= score(torch.from_numpy(PLAIN[job.preset](train, test)), exact)
        return {**row, "seconds": round(time.process_time() - tick, 1)}
    torch.manual_seed(asked.seed)
    flow = PRESETS[job.preset](features=train.shape[1], **job.fields).build()  # type: ignore[call-arg]
    report = diffeo.fit(flow, train, max_seconds=asked.seconds, seed=asked.seed, clock=CLOCK)
    with torch.no_grad():
        tick = time.process_time()
        row |= score(torch.cat([flow.log_prob(part) for part in test.split(BATCH)]), exact)
        scoring = (time.process_time() - tick) / len(test)
    return {
        **row,
        **drawn(flow, asked.seed),
        **kit.fitted(report),
        "valid": round(report.valid, 4),
        "skipped_steps": report.skipped,
        "score_us": _round(1e6 * scoring),
        "parameters": kit.size(flow),
        "budget": asked.seconds,
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


# -- the run ------------------------------------------------------------------------------------------


def options() -> kit.Options:
    parser = kit.Options(__doc__, data=..., seconds=..., rounds=15, seed=..., results=..., pages=...)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; none: the page")
    parser.option("--presets", VECTORS, choices=VECTORS)
    parser.option("--tables", list(TABLES), "of quality", choices=TABLES)
    parser.option("--columns", [8, 64], "of the flows of speed")
    return parser.option("--again", False, "also what there is a row of")


def main() -> None:
    parser = options()
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"there is no part {sorted(unknown)[0]}; there are {', '.join(PARTS)}.")
    torch.set_num_threads(1)
    store, provenance, failed = pages.store(asked.results), kit.provenance("choosing.py", asked), []
    if "speed" in asked.parts:
        for row in speed(asked.presets, asked.columns, asked.rounds):
            store.keep({**row, **provenance})
    for job in jobs_of(asked.parts, asked.presets, asked.tables, asked.seconds):
        place = {"part": job.part, "preset": job.preset, "where": job.where}
        if not asked.again and store.key(place) in map(store.key, store.read()):
            continue
        try:
            row = {**place, **fitted(job, asked)}
        except Exception as error:  # the others still run
            failed.append(f"{job}: {type(error).__name__}: {error}")
            print(failed[-1], flush=True)
            continue
        store.keep({**row, **provenance})
        print({**place, "test": row["test"], "seconds": row["seconds"]}, flush=True)
    if rows := store.read():
        for page in (asked.pages / "choosing.md", asked.pages.parent / "choosing.md"):
            kit.fill(page, pages.blocks(rows))
    if failed:
        sys.exit("failed:\n" + "\n".join(failed))


if __name__ == "__main__":
    main()
