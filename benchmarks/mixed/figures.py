"""The figures of TabDiff's protocol, as TabPC's repository computes them: real rows against synthetic ones.

``c2st``: sdmetrics' detection with XGBoost: text as one-hot columns, codes as numbers, gaps as means, three
folds; 1 - mean(max(1/2, AUC) 2 - 1). ``shape`` and ``trend``: sdmetrics' quality report. Its version
matters: in 0.24 the bins of a number beside a category run from least to greatest in either table *by
itself*, so the one largest row decides; later ones weight the pairs by association. ``trend_same_bins`` has
the bins of the real table for both. ``wmi``: with ``N(i, j) = 2 I(i, j) / (H(i) + H(j))``, numbers in ten
equal bins between the least and the greatest real one, it is ``1 - sum w |N_real - N_synthetic| / sum w``
over the pairs, w = N_real + N_synthetic. ``efficacy``: XGBoost learns the target from the rows, 36 settings
compared on a ninth of them, AUC on real test rows. (Scalings, which trees do not see, are left out.)
``alpha`` and ``beta``: precision and recall of synthcity's naive kind, between columns scaled to [0, 1] and
one-hot ones.
"""

from __future__ import annotations

import warnings
from itertools import combinations

import numpy as np
import pandas as pd
from sdmetrics.column_pairs import ContingencySimilarity, CorrelationSimilarity
from sdmetrics.reports.single_table import QualityReport
from sdmetrics.single_table.detection.sklearn import ScikitLearnClassifierDetectionMetric
from sklearn.compose import make_column_transformer
from sklearn.metrics import mutual_info_score, roc_auc_score
from sklearn.model_selection import ParameterGrid, train_test_split
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder
from xgboost import XGBClassifier

from mixed import Mixed

GRID = {"n_estimators": [10, 50, 100], "min_child_weight": [1, 10], "max_depth": [5, 10, 20], "gamma": [0, 1]}
THREADS = 1


def metadata(table: Mixed) -> dict:
    kinds = dict.fromkeys(table.numbers, "numerical") | dict.fromkeys(table.categories, "categorical")
    return {"columns": {name: {"sdtype": kind} for name, kind in kinds.items()}}


class Booster(ScikitLearnClassifierDetectionMetric):
    @staticmethod
    def _get_classifier() -> XGBClassifier:
        return XGBClassifier(eval_metric="logloss", random_state=0, n_jobs=THREADS)


def c2st(table: Mixed, synthetic: pd.DataFrame) -> float:
    np.random.seed(0)  # sdmetrics shuffles by the global generator
    names = [*table.numbers, *table.categories]
    return float(Booster.compute(table.train[names], synthetic[names], metadata(table)))


def shape_and_trend(table: Mixed, synthetic: pd.DataFrame) -> tuple[float, float]:
    report = QualityReport()
    names = table.columns
    report.generate(table.train[names], synthetic[names], metadata(table), verbose=False)
    return tuple(float(score) for score in report.get_properties()["Score"])  # type: ignore[return-value]


def trend_same_bins(table: Mixed, synthetic: pd.DataFrame) -> float:
    scores = []
    for pair in map(list, combinations(table.columns, 2)):
        numbers = [name for name in pair if name in table.numbers]
        real, drawn = table.train[pair], synthetic[pair]
        if len(numbers) == 2:
            scores.append(CorrelationSimilarity.compute(real, drawn))
        else:
            scores.append(
                ContingencySimilarity.compute(real, drawn, numbers or None, num_rows_subsample=None)
            )
    return float(np.nanmean(scores))


def information(codes: pd.DataFrame) -> np.ndarray:
    """Of each pair of columns, in parts of their mean entropy."""
    entropy = {name: mutual_info_score(codes[name], codes[name]) for name in codes}
    return np.array(
        [
            2 * mutual_info_score(codes[i], codes[j]) / ((entropy[i] or 1) + (entropy[j] or 1))
            for i, j in combinations(codes, 2)
        ]
    )


def wmi(table: Mixed, synthetic: pd.DataFrame) -> float:
    def coded(frame: pd.DataFrame) -> pd.DataFrame:
        columns = {}
        for name in table.columns:
            column = frame[name]
            if name in table.numbers and column.nunique(dropna=False) > 11:
                edges = np.histogram_bin_edges(table.train[name].dropna(), bins=10)
                column = pd.cut(column, edges, include_lowest=True)
            columns[name] = pd.Categorical(column).codes
        return pd.DataFrame(columns)

    real, drawn = information(coded(table.train)), information(coded(synthetic))
    weights = real + drawn
    return float(1 - (weights * abs(real - drawn)).sum() / weights.sum())


def coder(table: Mixed, numbers: object = "passthrough", without: str | None = None):
    hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    named = [name for name in table.categories if name != without]
    return make_column_transformer((numbers, table.numbers), (hot, named))


def efficacy(table: Mixed, rows: pd.DataFrame) -> float:
    """The AUC on the test rows of what was learnt from these."""
    target = table.target
    levels = sorted(table.train[target].unique())
    code = coder(table, without=target)
    labels = rows[target].map(levels.index)
    x, held, y, held_y = train_test_split(code.fit_transform(rows), labels, test_size=1 / 9, random_state=0)
    fitted = [XGBClassifier(**grid, n_jobs=THREADS).fit(x, y) for grid in ParameterGrid(GRID)]
    best = max(fitted, key=lambda model: roc_auc_score(held_y, model.predict_proba(held)[:, 1]))
    given = code.transform(table.test)
    return float(roc_auc_score(table.test[target].map(levels.index), best.predict_proba(given)[:, 1]))


def alpha_and_beta(table: Mixed, synthetic: pd.DataFrame) -> tuple[float, float]:
    code = coder(table, MinMaxScaler())
    real = code.fit_transform(table.train).astype(np.float32)
    drawn = code.transform(synthetic).astype(np.float32)
    levels = np.linspace(0, 1, 30)
    inside = np.linalg.norm(real - real.mean(0), axis=1)
    ours = np.linalg.norm(drawn - real.mean(0), axis=1)
    precision = np.array([np.mean(ours <= radius) for radius in np.quantile(inside, levels)])
    to_real = NearestNeighbors(n_neighbors=2).fit(real).kneighbors(real)[0][:, 1]
    to_drawn, which = (found[:, 0] for found in NearestNeighbors(n_neighbors=1).fit(drawn).kneighbors(real))
    radii = np.linalg.norm(drawn[which] - drawn.mean(0), axis=1)
    near = to_drawn <= to_real
    recall = np.array([np.mean(near & (radii <= radius)) for radius in np.quantile(radii, levels)])
    return tuple(float(1 - abs(levels - curve).sum() / levels.sum()) for curve in (precision, recall))  # type: ignore[return-value]


def figures(table: Mixed, synthetic: pd.DataFrame) -> dict[str, float]:
    """All of them; those of the target and of neighbors only where the table is complete."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: dict[str, float] = {"c2st": c2st(table, synthetic)}
        found["shape"], found["trend"] = shape_and_trend(table, synthetic)
        found["trend, same bins"] = trend_same_bins(table, synthetic)
        found["wmi"] = wmi(table, synthetic)
        if table.target is not None:
            found["efficacy"] = efficacy(table, synthetic)
            found["alpha"], found["beta"] = alpha_and_beta(table, synthetic)
    return {name: round(value, 4) for name, value in found.items()}
