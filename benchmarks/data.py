"""Where the benchmarks' data are: ``--data DIR`` or the variable DIFFEO_DATA."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Add ``--data``."""
    parser.add_argument("--data", type=Path, default=os.environ.get("DIFFEO_DATA"), help="folder of the data")


def folder(arguments: Namespace, part: str) -> Path:
    """The data's folder ``part``; without it the benchmark says so and stops."""
    if arguments.data is None:
        sys.exit("this benchmark needs real data: give --data DIR or set DIFFEO_DATA.")
    found = Path(arguments.data) / part
    if not found.is_dir():
        sys.exit(f"this benchmark needs {found}, which is not there.")
    return found
