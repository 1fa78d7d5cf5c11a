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

import time
from argparse import Namespace

import kit

from peers.libraries import ENTRIES, FLOOR, OURS
from peers.pages import KINDS, MEMORY, PAGES, PLANS, TIMED, Page, markdown
from peers.spec import Spec
from peers.turns import Bench
from peers.worker import versions


def options() -> kit.Options:
    timed = [name for name, entry in ENTRIES.items() if entry.builders]
    parser = kit.Options(__doc__, rounds=9, threads=2, results=...)
    parser.option("--models", list(PLANS), choices=list(PLANS))
    parser.option("--features", None, "in place of the model's own", nargs="+", type=int)
    parser.option("--batch", None, "in place of the model's own", nargs="+", type=int)
    parser.option("--rows", list(KINDS), "those a model has of them", choices=KINDS)
    parser.option("--contestants", timed, choices=timed)
    parser.option("--compiled-batch", [1024], "for torch.compile", nargs="*")
    parser.option("--cell-seconds", 6.0, "of one contestant in one cell")
    return parser.option("--skip-seconds", 60.0, "calls thought longer are skipped")


def main() -> None:
    asked = options().parse_args()
    for page in PAGES:
        if models := [model for model in page.plans if model in asked.models]:
            measure(page, models, asked)


def measure(page: Page, models: list[str], asked: Namespace) -> None:
    """Everything on one page."""
    started = time.time()
    wanted = {*asked.contestants, OURS, FLOOR}
    names = [n for n, entry in ENTRIES.items() if n in wanted and entry.builders.keys() & set(models)]
    bench = Bench(names, asked)
    found = {"machine": kit.machine(asked.threads), "options": kit.settings(asked)}
    found["versions"] = versions([n for n in names if ENTRIES[n].packages], asked.threads)
    found |= {"flows": bench.flows, "rows": bench.rows}

    def keep() -> None:
        found["minutes"] = round((time.time() - started) / 60, 1)
        kit.write(asked.results, page.name, found, markdown(page, found))

    for model in models:
        plan = page.plans[model]
        kinds = [kind for kind in plan.rows if kind in asked.rows]
        for spec in [Spec(model, features) for features in asked.features or plan.features]:
            bench.build(spec)
            for kind in kinds:
                for batch in sorted(asked.batch or plan.batch):
                    if kind in TIMED:
                        bench.time(spec, kind, batch)
                    else:
                        (bench.memory if kind == MEMORY else bench.round_trip)(spec, batch)
            keep()
    bench.end()
    print(f"{asked.results / page.name}.md, {found['minutes']} minutes", flush=True)


if __name__ == "__main__":
    main()
