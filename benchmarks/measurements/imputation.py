"""Imputation of mixed tables, 30% of entries removed at random: ``diffeo.tables.impute`` and three others.

    .bench/tables/bin/python benchmarks/measure.py imputation --data DIR --seconds 600 --threads 2

Each learns the training rows with their holes, and fills the test rows, whose removed entries are known.
Numbers in units of the training rows' deviation: ``rmse`` of the mean of the draws, ``crps`` of the draws
(of a single answer: the absolute error), ``cover`` of their middle 90%, ends included (between .87 and .93;
more where values repeat). Categories: ``accuracy`` of the most frequent draw, ``log loss`` of the draws'
shares (all levels together have one draw more). Means over columns. scikit-learn's IterativeImputer and
KNNImputer give one answer, with levels as columns of zeros and ones; utrees gives draws. They learn --rows
of the training rows only: more take them hours.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import kit
import mixed
import numpy as np
import pandas as pd

from measurements import Measurement

REMOVED = 0.3


class Codes:
    """Columns as numbers: standardized, or the code of a level by frequency; NaN where there is none."""

    def __init__(self, train: pd.DataFrame, numbers: list[str]):
        self.numbers, self.levels = numbers, {}
        self.mean, self.spread = train[numbers].mean(), train[numbers].std(ddof=0).replace(0, 1)
        for name in train:
            if name not in numbers:
                self.levels[name] = train[name].value_counts().index

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        columns = []
        for name in frame:
            if name in self.levels:
                codes = self.levels[name].get_indexer(frame[name]).astype(float)
                columns.append(np.where(codes < 0, np.nan, codes))
            else:
                columns.append(((frame[name] - self.mean[name]) / self.spread[name]).to_numpy(float))
        return np.stack(columns, 1)


def holes(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    removed = np.random.default_rng(seed).random(frame.shape) < REMOVED
    return frame.mask(removed)


def ours(path: Path, train: pd.DataFrame, test: pd.DataFrame, codes: Codes, asked: Namespace) -> np.ndarray:
    import diffeo

    train.to_csv(path.with_name("train.csv"), index=False)
    test.to_csv(path.with_name("test.csv"), index=False)
    known, given = (diffeo.Table.read(path.with_name(f"{part}.csv")) for part in ("train", "test"))
    flow, _ = diffeo.fit_table(known, max_seconds=asked.seconds, seed=asked.seed)
    drawn = diffeo.tables.impute(flow, given, n=asked.draws, seed=asked.seed)
    return np.stack([codes.encode(table.to_pandas()[list(test)]) for table in drawn])


def one_answer(imputer: object, train: pd.DataFrame, test: pd.DataFrame, codes: Codes) -> np.ndarray:
    """Of scikit-learn's imputers: levels as columns of zeros and ones, of which the greatest is it."""

    def hot(frame: pd.DataFrame) -> np.ndarray:
        coded, blocks = codes.encode(frame), []
        for j, size in enumerate(sizes):
            own = coded[:, [j]]
            blocks.append(np.where(np.isnan(own), np.nan, own == np.arange(size)) if size else own)
        return np.hstack(blocks)

    sizes = [len(codes.levels.get(name, ())) for name in train]
    filled = imputer.fit(hot(train)).transform(hot(test))
    parts = np.split(filled, np.cumsum([size or 1 for size in sizes])[:-1], axis=1)
    return np.stack([p.argmax(1) if size else p[:, 0] for p, size in zip(parts, sizes, strict=True)], 1)[None]


def iterative(
    path: Path, train: pd.DataFrame, test: pd.DataFrame, codes: Codes, asked: Namespace
) -> np.ndarray:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    few = IterativeImputer(random_state=asked.seed, n_nearest_features=30, keep_empty_features=True)
    return one_answer(few, train[: asked.rows], test, codes)


def neighbors(
    path: Path, train: pd.DataFrame, test: pd.DataFrame, codes: Codes, asked: Namespace
) -> np.ndarray:
    from sklearn.impute import KNNImputer

    return one_answer(KNNImputer(keep_empty_features=True), train[: asked.rows], test, codes)


def utrees(path: Path, train: pd.DataFrame, test: pd.DataFrame, codes: Codes, asked: Namespace) -> np.ndarray:
    from sklearn.utils.validation import validate_data
    from utrees import UnmaskingTrees
    from utrees.kdi_quantizer import KDIQuantizer

    KDIQuantizer._validate_data = validate_data  # a method that scikit-learn has made a function since
    kinds = ["categorical" if name in codes.levels else "continuous" for name in train]
    known = codes.encode(train)[: asked.rows]
    trees = UnmaskingTrees(duplicate_K=asked.duplicates, random_state=asked.seed).fit(
        known, quantize_cols=kinds
    )
    return np.asarray(trees.impute(n_impute=asked.draws, X=codes.encode(test[: asked.tree_rows])))


METHODS = {"diffeo": ours, "iterative": iterative, "neighbors": neighbors, "utrees": utrees}


def crps(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean distance to the truth less half that between draws."""
    count = len(draws)
    order = 2 * np.arange(1, count + 1) - count - 1
    spread = (order[:, None] * np.sort(draws, 0)).sum(0) / count**2
    return abs(draws - truth).mean(0) - spread


def scores(
    drawn: np.ndarray, truth: np.ndarray, given: np.ndarray, codes: Codes, names: list[str]
) -> kit.Row:
    found: dict[str, list[float]] = {}
    for j, name in enumerate(names):
        removed = np.isnan(given[:, j]) & ~np.isnan(truth[:, j])
        if not removed.any():
            continue
        draws, right = drawn[:, removed, j], truth[removed, j]
        if name in codes.numbers:
            row = {
                "rmse": float(np.sqrt(((draws.mean(0) - right) ** 2).mean())),
                "crps": crps(draws, right).mean(),
            }
            if len(draws) > 1:
                tail = round(0.05 * (len(draws) + 1))  # of n draws, n + 1 places that the truth may have
                low, high = np.sort(draws, 0)[[tail - 1, -tail]]
                row["cover"] = ((low <= right) & (right <= high)).mean()
        else:
            size = len(codes.levels[name])
            level = np.clip(np.round(draws), 0, size - 1)
            counts = np.stack([(level == k).sum(0) for k in range(size)])
            share = (counts[right.astype(int), np.arange(len(right))] + 1 / size) / (len(draws) + 1)
            row = {"accuracy": (counts.argmax(0) == right).mean()}
            row |= {"log loss": -np.log(share).mean()} if len(draws) > 1 else {}
        for figure, value in row.items():
            found.setdefault(figure, []).append(float(value))
    return {figure: round(float(np.mean(values)), 4) for figure, values in found.items()}


def rows(asked: Namespace) -> Iterator[kit.Row]:
    for table in mixed.tables(asked):
        names = table.columns
        codes = Codes(table.train[names], table.numbers)
        truth = codes.encode(table.test[names])
        train, test = holes(table.train[names], asked.seed), holes(table.test[names], asked.seed + 1)
        if asked.test_rows:
            truth, test = truth[: asked.test_rows], test[: asked.test_rows]
        path = table.work / "imputation" / "model"
        path.parent.mkdir(parents=True, exist_ok=True)
        for method in asked.methods:
            start = time.perf_counter()
            drawn = METHODS[method](path, train, test, codes, asked)
            took = round(time.perf_counter() - start, 1)
            filled = drawn.shape[1]
            found = scores(drawn, truth[:filled], codes.encode(test[:filled]), codes, names)
            yield {"table": table.name, "method": method, "rows": filled, **found, "seconds": took}


OPTIONS = {
    **mixed.OPTIONS,
    "--names": ["adult", "lending"],
    "--methods": (list(METHODS), "of these"),
    "--draws": (39, "of each missing entry: 19, 39, 99, so that a twentieth is a whole number"),
    "--test-rows": (2000, "the first ones only; 0 for all"),
    "--rows": (5000, "the first ones, that the others learn"),
    "--tree-rows": (200, "the first ones, that utrees fills: a call a missing entry and draw"),
    "--duplicates": (10, "of each row, in as many orders, that utrees learns"),
}
MEASUREMENT = Measurement(__doc__, rows, {"data": ..., "seconds": 600.0, "seed": 0}, OPTIONS)
