"""All probes that run in this environment: prints, as JSON, what each showed.

python -m peers.features.probe
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec

from peers.features import LIBRARIES, NO, PACKAGES, Seen, absent, console_scripts, imports
from peers.features.rows import ROWS, Row
from peers.libraries import ENTRIES

TORCH = import_module("torch") if find_spec("torch") else None
NAMES = [name for name in LIBRARIES if ENTRIES[name].venv == ("torch" if TORCH else "jax")]
COMMON = import_module("peers.features.on_torch").COMMON if TORCH else {}
OURS = {"diffeo": import_module("peers.features.ours")} if TORCH else {}
PROBES = {name: OURS.get(name, ENTRIES[name].adapter).PROBES for name in NAMES}


def seen(row: Row, library: str) -> Seen:
    """By the library's own probe, else by a common one, else by a search for names."""
    if row.key == "tables" and library != "diffeo":
        scripts = console_scripts(ENTRIES[library].packages[0])
        assert not scripts, scripts
        return NO, "no console script"
    if row.key in (own := PROBES[library]):
        return own[row.key]()
    if row.key in COMMON:
        return COMMON[row.key](library)
    if row.key == "jax":
        found = imports(PACKAGES[library], "jax")
        assert not found, found
        return NO, "on PyTorch; no file imports `jax`"
    assert row.searched, f"no probe of {row.key} for {library}"
    return absent(library, row.searched, layer=row.layer)


def main() -> None:
    warnings.simplefilter("ignore")
    if TORCH:
        TORCH.set_num_threads(1)
    table: dict = {"versions": {}}
    for name in NAMES:
        table["versions"] |= ENTRIES[name].versions()
    for row in ROWS:
        table[row.key] = {}
        for library in NAMES:
            if TORCH:
                TORCH.manual_seed(0)
            table[row.key][library] = seen(row, library)
            print(row.key, library, *table[row.key][library], file=sys.stderr, flush=True)
    print(json.dumps(table))


if __name__ == "__main__":
    main()
