"""Four tables as people have them, and ``diffeo`` run on them as its users do: what the mixed measurements
share.

The parts are those of the data's README: Adult's published ones, 90/10 of the others. What the published
protocol takes for categories although it is written in numbers is declared for the *figures* only.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import kit
import numpy as np
import pandas as pd

CODES = {
    "adult": (),
    "default": ("SEX", "EDUCATION", "MARRIAGE", *(f"PAY_{i}" for i in (0, 2, 3, 4, 5, 6))),
    "shoppers": ("OperatingSystems", "Browser", "Region", "TrafficType", "Weekend"),
    "lending": (),
}
TARGETS = {"adult": "class", "default": "default payment next month", "shoppers": "Revenue", "lending": None}
FREE_TEXT = ["emp_title"]  # almost a level a row: no figure can use it
PUBLISHED = {
    "c2st": "xgb_detection",
    "trend": "trend",
    "wmi": "nmi_l1_weighted_complement",
    "efficacy": "mle",
    "alpha": "alpha_precision",
    "beta": "beta_recall",
}


@dataclass(frozen=True)
class Mixed:
    """One of the tables, its parts as files of ``work``."""

    name: str
    data: Path
    work: Path

    @property
    def target(self) -> str | None:
        return TARGETS[self.name]

    @cached_property
    def train(self) -> pd.DataFrame:
        return pd.read_csv(self.files[0])

    @cached_property
    def test(self) -> pd.DataFrame:
        return pd.read_csv(self.files[1])

    @cached_property
    def files(self) -> tuple[Path, Path]:
        """Training and test rows, raw; written once where the table is published whole."""
        if self.name == "adult":
            return self.data / "adult_train.csv", self.data / "adult_test.csv"
        train, test = (self.work / f"{self.name}_{part}.csv" for part in ("train", "test"))
        if not test.exists():
            lines = (self.data / f"{self.name}.csv").read_text().splitlines()
            order = np.random.RandomState(0).permutation(len(lines) - 1)
            cut = round(0.9 * len(order))
            self.work.mkdir(parents=True, exist_ok=True)
            for path, part in ((train, order[:cut]), (test, order[cut:])):
                path.write_text("\n".join([lines[0], *(lines[1 + i] for i in part)]) + "\n")
        return train, test

    @cached_property
    def columns(self) -> list[str]:
        return [name for name in self.train if name not in FREE_TEXT]

    @cached_property
    def numbers(self) -> list[str]:
        """The columns that the protocol takes for numbers; the others are categories."""
        codes = (*CODES[self.name], self.target)
        return [c for c in self.columns if self.train[c].dtype.kind in "if" and c not in codes]

    @cached_property
    def categories(self) -> list[str]:
        return [name for name in self.columns if name not in self.numbers]

    def published(self, figure: str) -> str:
        """The best published figure and whose it is."""
        rows = pd.read_csv(self.data / f"published_{PUBLISHED[figure]}.csv").query("dataset == @self.name")
        if not len(rows):
            return ""
        best = rows.loc[rows["mean"].idxmax()]
        return f"{best['mean']:.3f} {best['method']}"


def tables(asked: Namespace) -> list[Mixed]:
    return [Mixed(name, kit.folder(asked, "mixed"), asked.work) for name in asked.names]


def diffeo(*words: object, threads: int = 1) -> tuple[str, float]:
    """Run a command: what one would type, file names without their folders, and its seconds."""
    command = [str(word) for word in ("diffeo", *words)]
    start = time.perf_counter()
    path = Path(sys.executable).with_name("diffeo")
    env = kit.environment(threads)
    done = subprocess.run([str(path), *command[1:]], env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(command)}\n{done.stderr}")
    shown = [Path(word).name if "/" in word else word for word in command]
    return shlex.join(shown), time.perf_counter() - start


def model(table: Mixed, seconds: float, seed: int, threads: int) -> tuple[Path, kit.Row]:
    """A model of the training rows with default settings; made once, and kept in ``work``."""
    path = table.work / f"{table.name}-{seconds:g}s-seed{seed}.safetensors"
    if path.exists():
        return path, {"fit": f"{path.name}, made before"}
    told = ["--max-seconds", f"{seconds:g}", "--seed", seed]
    command, took = diffeo("fit", table.files[0], "-o", path, *told, threads=threads)
    return path, {"fit": command, "fit seconds": round(took, 1)}


def samples(table: Mixed, path: Path, seed: int, threads: int) -> tuple[Path, kit.Row]:
    """As many rows as it was trained on."""
    out = path.with_suffix(".csv")
    told = ["-n", len(table.train), "-o", out, "--seed", seed]
    command, took = diffeo("sample", path, *told, threads=threads)
    return out, {"sample": command, "sample seconds": round(took, 1)}


OPTIONS = {"--names": ["adult", "default", "shoppers"], "--work": (Path("mixed-work"), "folder for models")}
