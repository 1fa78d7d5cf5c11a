"""``python -m tests.fuzz [KIND ...] [--first N] [--count N] [--keep DIR]``"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from .runner import failed, outcomes

_KINDS = ("table", "picture", "model")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Read damaged files.")
    parser.add_argument("kinds", nargs="*", default=_KINDS, metavar="KIND", help=f"of {', '.join(_KINDS)}")
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--count", type=int, default=1000, help="files of each kind")
    parser.add_argument("--keep", type=Path, help="folder to write the files to, instead of reading them")
    options = parser.parse_args()
    faults = 0
    for kind in options.kinds:
        if options.keep is not None:
            _keep(kind, options.first, options.count, options.keep)
            continue
        results, start, slowest, largest = Counter[str](), time.monotonic(), 0.0, 0.0
        for found in outcomes(kind, options.first, options.count):
            results[found["result"]] += 1
            slowest = max(slowest, found.get("seconds", 0.0))
            largest = max(largest, found.get("megabytes", 0.0))
            if failed(found):
                faults += 1
                print(kind, found, flush=True)
        taken = time.monotonic() - start
        print(
            f"{kind}: {dict(results)} in {taken:.0f} s; at most {slowest:.2f} s, {largest:.0f} MB", flush=True
        )
    return int(faults > 0)


def _keep(kind: str, first: int, count: int, folder: Path) -> None:
    from .child import damaged
    from .originals import ORIGINALS

    originals = ORIGINALS[kind]()
    for number in range(first, first + count):
        suffix, content = damaged(kind, originals, number)
        (folder / f"{kind}-{number}{suffix}").write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
