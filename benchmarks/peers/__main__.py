"""diffeo beside zuko, nflows, normflows, FrEIA and FlowJAX: the same flows, timed in turns.

    make bench [ARGS="--models NSF --features 8 --batch 1024 --rounds 3"]

One process a contestant; in each round every contestant in turn is timed while the others rest. A cell
is the median over rounds; a peer too slow for its cell's time is timed once or twice, and left out
where smaller batches say it would take longer than ``--skip-seconds``. Memory is measured in new processes.
Writes RESULTS/peers.json and RESULTS/peers.md.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from peers.architecture import KINDS, MODELS, TIMED, Spec
from peers.contestants import ENTRIES, FLOOR, OURS
from peers.machine import machine
from peers.measure import Bench
from peers.processes import ROOT, versions
from peers.report import markdown


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--features", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 1024, 16384])
    parser.add_argument("--rows", nargs="+", default=KINDS, choices=KINDS)
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
    started = time.time()
    names = [n for n in ENTRIES if n in {*asked.contestants, OURS, FLOOR}]
    bench = Bench(names, asked)
    libraries = [n for n in names if ENTRIES[n].packages]
    found = {"machine": machine(asked.threads), "options": _plain(asked)}
    found["versions"] = versions(libraries, asked.threads)
    found |= {"flows": bench.flows, "rows": bench.rows}

    def keep() -> None:
        found["minutes"] = round((time.time() - started) / 60, 1)
        asked.results.mkdir(parents=True, exist_ok=True)
        (asked.results / "peers.json").write_text(json.dumps(found, indent=1) + "\n")
        (asked.results / "peers.md").write_text(markdown(found))

    specs = [Spec(model, features) for model in asked.models for features in asked.features]
    timed = [kind for kind in TIMED if kind in asked.rows]
    for spec in specs:
        bench.build(spec)
        for kind in timed:
            for batch in sorted(asked.batch):
                bench.time(spec, kind, batch)
        keep()
    bench.end()
    if "memory" in asked.rows:
        bench.memory(specs, sorted(asked.batch))
    keep()
    print(f"{asked.results / 'peers.md'}, {found['minutes']} minutes", flush=True)


def _plain(asked: argparse.Namespace) -> dict[str, object]:
    return {k: v for k, v in vars(asked).items() if k != "results"}


if __name__ == "__main__":
    main()
