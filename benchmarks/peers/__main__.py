"""diffeo beside zuko, nflows, normflows, FrEIA and FlowJAX: the same flows, timed in turns.

    make bench [ARGS="--models NSF --features 8 --batch 1024 --rounds 3"]
    make bench ARGS="--models ResidualFlow FFJORD"

One process a contestant; in each round every contestant in turn is timed while the others rest. A cell
is the median over rounds; a peer too slow for its cell's time is timed once or twice, and left out
where smaller batches say it would take longer than ``--skip-seconds``. Memory is measured in new processes.
Writes a JSON and a Markdown file in RESULTS for each page that has one of the models: peers for layered
flows, peers_free_form for residual and continuous ones. Pages of other models stay as they are.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from peers.architecture import Spec
from peers.contestants import ENTRIES, FLOOR, OURS
from peers.machine import machine
from peers.measure import Bench
from peers.pages import KINDS, MEMORY, PAGES, PLANS, ROUND_TRIP, TIMED, Page
from peers.processes import ROOT, versions
from peers.report import markdown


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(PLANS), choices=list(PLANS))
    parser.add_argument("--features", type=int, nargs="+", help="in place of the model's own")
    parser.add_argument("--batch", type=int, nargs="+", help="in place of the model's own")
    parser.add_argument("--rows", nargs="+", default=KINDS, choices=KINDS, help="those a model has of them")
    parser.add_argument("--contestants", nargs="+", default=list(ENTRIES), choices=list(ENTRIES))
    parser.add_argument("--compiled-batch", type=int, nargs="*", default=[1024], help="for torch.compile")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cell-seconds", type=float, default=6.0, help="of one contestant in one cell")
    parser.add_argument("--skip-seconds", type=float, default=60.0, help="calls thought longer are skipped")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    return parser.parse_args()


def main() -> None:
    asked = options()
    for page in PAGES:
        if models := [model for model in page.plans if model in asked.models]:
            measure(page, models, asked)


def measure(page: Page, models: list[str], asked: argparse.Namespace) -> None:
    """Everything on one page."""
    started = time.time()
    wanted = {*asked.contestants, OURS, FLOOR}
    names = [n for n, entry in ENTRIES.items() if n in wanted and entry.builders.keys() & set(models)]
    bench = Bench(names, asked)
    found = {"machine": machine(asked.threads), "options": _plain(asked)}
    found["versions"] = versions([n for n in names if ENTRIES[n].packages], asked.threads)
    found |= {"flows": bench.flows, "rows": bench.rows}

    def keep() -> None:
        found["minutes"] = round((time.time() - started) / 60, 1)
        asked.results.mkdir(parents=True, exist_ok=True)
        (asked.results / f"{page.name}.json").write_text(json.dumps(found, indent=1) + "\n")
        (asked.results / f"{page.name}.md").write_text(markdown(page, found))

    weighed: list[tuple[Spec, int]] = []
    for model in models:
        plan = page.plans[model]
        batches = sorted(asked.batch or plan.batch)
        kinds = [kind for kind in plan.rows if kind in asked.rows]
        for spec in [Spec(model, features) for features in asked.features or plan.features]:
            bench.build(spec)
            for kind in kinds:
                for batch in batches if kind in TIMED else []:
                    bench.time(spec, kind, batch)
            if ROUND_TRIP in kinds:
                for batch in batches:
                    bench.round_trip(spec, batch)
            weighed += [(spec, batch) for batch in batches] if MEMORY in kinds else []
            keep()
    bench.end()
    bench.memory(weighed)
    keep()
    print(f"{asked.results / page.name}.md, {found['minutes']} minutes", flush=True)


def _plain(asked: argparse.Namespace) -> dict[str, object]:
    return {k: v for k, v in vars(asked).items() if k != "results"}


if __name__ == "__main__":
    main()
