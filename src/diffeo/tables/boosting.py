"""What boosted trees make of two tables: can they be told apart, and does one teach as much as the other?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffeo.tables.sides import Array, Side

FOLDS = 5
_MOST_ROWS, _MOST_ENTRIES = 30_000, 600_000
"""Rows of each table, and entries, that a booster learns from: 20 seconds of a slow core at the most."""
_TREES: Mapping[str, Any] = {"early_stopping": False}
_SHARP: Mapping[str, Any] = {"learning_rate": 0.3, "max_leaf_nodes": 63}
"""What tells tables apart: on Default and Shoppers as sharp as XGBoost's defaults, where scikit-learn's own,
and levels as categories, let pass half of what these find."""
_FEWEST = 20
"""Rows of each table below which nothing is told."""
_SHUFFLED = 2_000
"""Rows of a fold in which columns are shuffled one at a time."""
_CLASSES = 20
"""Classes of a target, of which the rarest are taken together."""
_AGAIN = 50
"""Resamples of the test rows behind a standard error."""


@dataclass(frozen=True)
class Tell:
    """A column by which tables are told apart: what the AUC loses when it is shuffled, and its error."""

    name: str
    loss: float
    error: float


@dataclass(frozen=True)
class Detection:
    """A classifier two-sample test: how well boosted trees tell synthetic rows from real ones.

    Args:
        auc: area under the curve on held-out folds; 0.5 is a guess, 1 is certainty.
        error: its standard error over the folds.
        rows: of each table.
        tells: the columns, the most telling first.
    """

    auc: float
    error: float
    rows: int
    tells: tuple[Tell, ...]

    @property
    def score(self) -> float:
        """1 where the tables cannot be told apart, 0 where every row can: ``1 - (2 max(auc, 1/2) - 1)``."""
        return 2 - 2 * max(self.auc, 0.5)


@dataclass(frozen=True)
class Efficacy:
    """A model trained on synthetic rows and one trained on as many real rows, both tested on real rows.

    Args:
        target: the column to predict from all others.
        measure: ``AUC`` of a category (one class against the rest, averaged by how common they are), ``R2``
            of a number.
        real, real_error: of the model trained on real rows, and its standard error over the test rows.
        synthetic, synthetic_error: of the model trained on synthetic rows.
        gap_error: the standard error of the difference of the two.
        rows, tested: rows each was trained on, and tested on.
    """

    target: str
    measure: str
    real: float
    real_error: float
    synthetic: float
    synthetic_error: float
    gap_error: float
    rows: int
    tested: int


def detect(columns: Sequence[Side], seed: int) -> Detection | None:
    """Train boosted trees to tell parts 0 and 1 apart; None where there are fewer than 20 rows of either."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold

    random = np.random.default_rng(seed)
    n = min(*(len(part) for part in columns[0].parts[:2]), _most(columns))
    if n < _FEWEST:
        return None
    parts = [_features(columns, i)[random.permutation(len(columns[0].parts[i]))[:n]] for i in (0, 1)]
    x, y = np.concatenate(parts), np.repeat([0, 1], n)
    aucs, losses = [], []
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, y):
        model = HistGradientBoostingClassifier(**_TREES, **_SHARP, random_state=seed)
        learned, tested = _usable(x[train], x[test])
        model.fit(learned, y[train])

        def told(rows: Array, y: NDArray[np.int64], model: Any = model) -> float:
            return _auc(model.predict_proba(rows)[:, 1], y == 1)

        aucs.append(told(tested, y[test]))
        some = random.permutation(len(test))[:_SHUFFLED]
        losses.append(_losses(told, tested[some], y[test][some], random))
    loss, error = _mean_and_error(np.array(losses))
    order = np.argsort(-loss, kind="stable")
    tells = tuple(Tell(columns[i].name, float(loss[i]), float(error[i])) for i in order)
    auc, auc_error = _mean_and_error(np.array(aucs)[:, None])
    return Detection(float(auc[0]), float(auc_error[0]), n, tells)


def efficacy(columns: Sequence[Side], target: str, seed: int) -> Efficacy | None:
    """Predict a column of part 2 after training on part 0 and on part 1; None where the rows are too few, or
    the target does not vary."""
    at = next(i for i, side in enumerate(columns) if side.name == target)
    side, others = columns[at], [s for i, s in enumerate(columns) if i != at]
    if not others:
        return None
    random, known = np.random.default_rng(seed), [np.flatnonzero(np.isfinite(p)) for p in side.parts]
    n, tested = min(len(known[0]), len(known[1]), _most(columns)), min(len(known[2]), _MOST_ROWS)
    if n < _FEWEST or tested < _FEWEST:
        return None
    rows = [random.permutation(k)[:m] for k, m in zip(known, (n, n, tested), strict=True)]
    goals: list[NDArray[Any]] = [part[r] for part, r in zip(side.parts, rows, strict=True)]
    if side.levels is not None:
        goals = _classes(goals, len(side.levels))
    else:  # squares of huge numbers, and of tiny ones, would be lost
        size = float(np.abs(goals[0]).max()) or 1.0
        goals = [goal / size for goal in goals]
        spread = float(goals[0].std()) or 1.0
        goals = [(goal - goals[0].mean()) / spread for goal in goals]
    if any(len(np.unique(goal)) < 2 for goal in (goals[0], goals[2])):
        return None
    x = [_features(others, i)[r] for i, r in enumerate(rows)]
    predicted = [_predicted(side, x[i], goals[i], x[2], seed) for i in (0, 1)]
    score = _class_auc if side.levels is not None else _explained
    draws = [np.arange(tested), *(random.integers(tested, size=(_AGAIN, tested)))]
    found = np.array([[score(p[d], goals[2][d]) for p in predicted] for d in draws])
    (real, synthetic), (real_error, synthetic_error) = found[0], np.nanstd(found[1:], 0)
    return Efficacy(
        target=target,
        measure="AUC" if side.levels is not None else "R2",
        real=float(real),
        real_error=float(real_error),
        synthetic=float(synthetic),
        synthetic_error=float(synthetic_error),
        gap_error=float(np.nanstd(found[1:, 1] - found[1:, 0])),
        rows=n,
        tested=tested,
    )


def likely_target(columns: Sequence[Side]) -> str | None:
    """The column that a table is most likely for: the last category of few levels, else the last number."""
    varying = [s for s in columns if len(np.unique(s.parts[0][~np.isnan(s.parts[0])])) > 1]
    classes = [s for s in varying if s.levels is not None and len(s.levels) <= _CLASSES]
    chosen = classes or [s for s in varying if s.levels is None]
    return chosen[-1].name if chosen else None


# -- inside ---------------------------------------------------------------------------------------


def _classes(goals: Sequence[Array], levels: int) -> list[NDArray[Any]]:
    """Codes of levels as classes, the commonest of the first goal first, the rarest taken together."""
    codes = [goal.astype(np.int64) for goal in goals]
    rank = np.empty(levels, np.int64)
    rank[np.argsort(-np.bincount(codes[0], minlength=levels), kind="stable")] = np.arange(levels)
    return [np.minimum(rank[each], _CLASSES - 1) for each in codes]


def _most(columns: Sequence[Side]) -> int:
    return min(_MOST_ROWS, max(_FEWEST, _MOST_ENTRIES // len(columns)))


def _features(columns: Sequence[Side], part: int) -> Array:
    """The columns of one table as boosted trees take them: NaN is missing, infinities are huge."""
    x = np.stack([side.parts[part] for side in columns], 1)
    return np.nan_to_num(x, nan=np.nan)


def _usable(train: Array, test: Array) -> tuple[Array, Array]:
    """The same rows, with zeros in columns that have no entry in training rows: trees do not take these."""
    blank = np.isnan(train).all(0)
    return np.where(blank, 0.0, train), np.where(blank, 0.0, test)


def _predicted(target: Side, x: Array, y: Any, test: Array, seed: int) -> Array:
    """Predictions for test rows: numbers, or a score of every class."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    x, test = _usable(x, test)
    if target.levels is None:
        model = HistGradientBoostingRegressor(**_TREES, random_state=seed)
        return model.fit(x, y).predict(test)
    scores = np.zeros((len(test), _CLASSES))
    if len(classes := np.unique(y)) > 1:
        model = HistGradientBoostingClassifier(**_TREES, random_state=seed)
        scores[:, classes] = model.fit(x, y).predict_proba(test)
    return scores


def _auc(score: Array, positive: NDArray[np.bool_]) -> float:
    """How often a positive row scores above another, ties being halves: the area under the curve."""
    _, at, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2
    p, n = int(positive.sum()), int((~positive).sum())
    return (float(rank[at][positive].sum()) - p * (p + 1) / 2) / (p * n) if p and n else np.nan


def _class_auc(scores: Array, y: NDArray[Any]) -> float:
    classes, counts = np.unique(y, return_counts=True)
    if len(classes) == 2:
        return _auc(scores[:, classes[1]] - scores[:, classes[0]], y == classes[1])
    return float(np.average([_auc(scores[:, c], y == c) for c in classes], weights=counts))


def _explained(predicted: Array, y: NDArray[Any]) -> float:
    """R2: the share of the variance that is explained."""
    spread = float(((y - y.mean()) ** 2).sum())
    return 1 - float(((y - predicted) ** 2).sum()) / spread if spread > 0 else np.nan


def _losses(
    told: Callable[[Array, NDArray[np.int64]], float], x: Array, y: NDArray[np.int64], random: Any
) -> list[float]:
    """What the AUC loses when each column is shuffled."""
    whole, found = told(x, y), []
    for i in range(x.shape[1]):
        shuffled = x.copy()
        shuffled[:, i] = random.permutation(x[:, i])
        found.append(whole - told(shuffled, y))
    return found


def _mean_and_error(folds: Array) -> tuple[Array, Array]:
    return folds.mean(0), folds.std(0, ddof=1) / len(folds) ** 0.5
