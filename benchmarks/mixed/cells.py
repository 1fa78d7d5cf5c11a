"""One measure for all that have a likelihood: rows as cells, and log-densities within cells.

A column is said by a dictionary: ``{"levels": [...]}`` of a category, or of a number ``{"atoms": [...],
"step": s}``, the values with a mass of their own and the grid that all others lie on, ``None`` where they
have a density. A gap is a cell too. All that is not an atom lies in cells between quantiles of the training
rows, the same ones for every baseline, in which it is uniform, on the grid or on the line; beyond the last
quantile it falls off exponentially. So a baseline only has to say how probable cells are.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

BINS, FEWEST = 64, 30


class Column:
    """Which cell each value is in, and with what density or mass there."""

    def __init__(self, said: dict, values: pd.Series):
        self.levels, self.step = said.get("levels"), said.get("step")
        found = values.dropna()
        if self.levels is not None:
            self.size = len(self.levels)
        else:
            self.atoms = np.sort(np.asarray(said["atoms"], float))
            rest = found.to_numpy(float)
            rest = rest[~np.isin(rest, self.atoms)]
            self.edges = self.scales = np.empty(0)
            if len(rest):
                self._cut(rest)
            self.bins = len(self.edges) + 1 if len(rest) else 0
            starts = np.concatenate([self.atoms, np.r_[-np.inf, self.edges][: self.bins]])
            self.order = np.argsort(np.argsort(starts, kind="stable"))  # cells in the order of numbers
            self.size = len(starts)
        self.gap = self.size if len(found) < len(values) else -1
        self.size += self.gap >= 0

    def _cut(self, rest: np.ndarray) -> None:
        count = int(np.clip(len(rest) // FEWEST, 2, BINS))
        edges = np.quantile(rest, np.linspace(0, 1, count + 1)[1:-1])
        if self.step:  # halfway between points of the grid
            self.start = rest[0]
            edges = self.start + (np.floor((edges - self.start) / self.step) + 0.5) * self.step
        self.edges = np.unique(edges)
        ends = (rest[rest <= self.edges[0]], rest[rest > self.edges[-1]])
        excess = [
            abs(x - edge).mean() if len(x) else 0 for x, edge in zip(ends, self.edges[[0, -1]], strict=True)
        ]
        self.scales = np.maximum(excess, max(1e-3 * rest.std(), 0.5 * (self.step or 0), 1e-12))

    def encode(self, values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        """The cell, -1 where there is none, and the log-density or log-mass within it."""
        within = np.zeros(len(values))
        if self.levels is not None:
            cell = pd.Index(self.levels).get_indexer(values)
        else:
            x = values.to_numpy(float)
            cell = pd.Index(self.atoms).get_indexer(x)
            free = (cell < 0) & ~np.isnan(x)
            if self.bins:
                which = np.searchsorted(self.edges, x[free], side="left")
                cell[free] = len(self.atoms) + which
                within[free] = self._within(x[free], which)
            cell = np.where(cell >= 0, self.order[cell], -1)
        cell[values.isna().to_numpy()] = self.gap
        return cell, within

    def _within(self, x: np.ndarray, which: np.ndarray) -> np.ndarray:
        last = len(self.edges)
        left, right = self.edges[np.clip(which - 1, 0, last - 1)], self.edges[np.clip(which, 0, last - 1)]
        inner = (which > 0) & (which < last)
        far = abs(x - np.where(which == 0, right, left))
        scale = self.scales[(which == last).astype(int)]
        if self.step:
            taken = np.searchsorted(self.atoms, right) - np.searchsorted(self.atoms, left)
            room = np.maximum(np.round((right - left) / self.step) - taken, 1)
            half = self.step / 2
            tail = -(far - half) / scale + np.log(-np.expm1(-self.step / scale))
        else:
            room, tail = np.maximum(right - left, 1e-300), -np.log(scale) - far / scale
        return np.where(inner, -np.log(np.where(inner, room, 1)), tail)


class Cells:
    """The rows of a table, a cell a column."""

    def __init__(self, said: dict[str, dict], train: pd.DataFrame):
        self.columns = {name: Column(said[name], train[name]) for name in said}
        self.sizes = [column.size for column in self.columns.values()]
        self.ordered = [column.levels is None for column in self.columns.values()]

    def encode(self, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Cells (rows, columns), and of each row the sum of the log-densities within them."""
        pairs = [column.encode(frame[name]) for name, column in self.columns.items()]
        return np.stack([cell for cell, _ in pairs], 1), sum(within for _, within in pairs)


def guessed(frame: pd.DataFrame, codes: list[str], share: float = 1e-3, most: int = 256) -> dict[str, dict]:
    """What columns are, where no model says it: values of some rows are atoms, whole numbers a grid."""
    said: dict[str, dict] = {}
    for name, column in frame.items():
        counts = column.value_counts()
        if name in codes or column.dtype.kind not in "if":
            said[name] = {"levels": list(counts.index)}
            continue
        kept = counts[counts >= max(10, share * len(frame))].index[:most]
        values = np.unique(column.dropna())
        whole = bool((values == np.round(values)).all())
        step = float(np.gcd.reduce(np.diff(values).astype(np.int64))) if whole and len(values) > 1 else None
        said[name] = {"atoms": list(kept), "step": step}
    return said
