"""Questions whose answers are known: ``diffeo.tables.query`` on three laws, and a class of Adult beside a
booster.

    python benchmarks/measure.py questions --seconds 120 [--data DIR]

A Gaussian of 5 columns, a Bayes net of 6, a mixture of both, 50,000 rows each (`mixed/laws.py`), fitted with
nothing set. Questions are drawn with the law: means, probabilities, densities of one and two columns, given
nothing, levels, sets, values and an interval. ``of truth`` counts the answers that are within three of their
own standard errors and 1% of the truth, ``of scale`` those within 1% of the scale: of 1 for a probability,
of the column's spread for a mean, of the truth for a density. ``median`` and ``worst`` are distances in that
scale. (Of a thing that is in 100 of 50,000 rows, the rows themselves know the probability to 10%.) With
--data: the AUC of P(class given the rest) on Adult's test rows, and that of a booster trained for it alone.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import kit
import numpy as np
from mixed.laws import LAWS, Law

import diffeo
from diffeo import tables
from measurements import Measurement

ROWS = 50_000


@dataclass(frozen=True)
class Question:
    kind: str
    of: list[str]
    given: dict[str, Any]
    wanted: Any
    truth: float
    scale: float


def questions(law: Law, drawn: dict[str, Any], count: int, seed: int) -> Iterator[Question]:
    """As many of each kind; what is given comes from a row, so it is something that happens."""
    rng = np.random.default_rng(seed)
    names = [*law.levels, *law.numbers]
    for i in range(3 * count):
        at = rng.integers(ROWS)
        row = {name: drawn[name][at] for name in names}
        asked, *rest = map(str, rng.permutation(names))
        given: dict[str, Any] = {}
        for name in rest[: i % 3]:
            level = name in law.levels
            if level:
                other = rng.choice(law.levels[name])
                given[name] = str(row[name]) if rng.random() < 0.5 else {str(row[name]), str(other)}
            elif any(isinstance(value, tuple) for value in given.values()) or rng.random() < 0.5:
                given[name] = float(row[name])
            else:
                width = drawn[name].std() / 2
                given[name] = (float(row[name] - width), float(row[name] + width))
        level, spread = asked in law.levels, 0.0 if asked in law.levels else drawn[asked].std()
        kind = ("mean", "probability", "density")[i // count]
        if kind == "density":
            pair = {asked: row[asked], rest[0]: row[rest[0]]} if i % 2 else {asked: row[asked]}
            values = {n: str(v) if n in law.levels else float(v) for n, v in pair.items()}
            truth = float(np.exp(law.log_density(values)))
            yield Question(kind, list(values), {}, values, truth, truth)
        elif kind == "mean" and not level:
            yield Question(kind, [asked], given, None, law.mean(asked, given), spread)
        else:
            wanted = str(row[asked]) if level else (float(row[asked]), np.inf)
            truth = law.probability(asked, wanted, given)
            open_end = wanted if level else (wanted[0], None)
            yield Question("probability", [asked], given, open_end, truth, 1.0)


def answer(flow: diffeo.Flow, asked: Question, seed: int) -> tuple[float, float]:
    """The answer and its standard error."""
    if asked.kind == "density":
        row = diffeo.Table.from_columns({name: [value] for name, value in asked.wanted.items()})
        return float(np.exp(tables.log_density(flow, row, asked.of)[0])), 0.0
    found = tables.query(flow, of=asked.of, given=asked.given, n=10_000, seed=seed)
    (name,) = asked.of
    told = found.mean(name) if asked.kind == "mean" else found.probability({name: asked.wanted})
    return told.value, told.standard_error


def summary(found: list[tuple[Question, float, float]]) -> kit.Row:
    off = np.array([abs(value - q.truth) for q, value, _ in found])
    truth, scale = (np.array([abs(getattr(q, name)) for q, _, _ in found]) for name in ("truth", "scale"))
    error = np.array([error for _, _, error in found])
    counts = {
        name: off <= 3 * error + 0.01 * unit for name, unit in (("of truth", truth), ("of scale", scale))
    }
    within = {name: f"{int(good.sum())} of {len(found)}" for name, good in counts.items()}
    return {**within, "median": float(np.median(off / scale)), "worst": float((off / scale).max())}


def rows(asked: Namespace) -> Iterator[kit.Row]:
    for name in asked.laws:
        law = LAWS[name]()
        drawn = law.draw(ROWS, asked.seed)
        table = diffeo.Table.from_columns(drawn)
        preset = (
            None if law.levels else diffeo.presets.Mixed(len(law.numbers))
        )  # else numbers get a `Tabular`
        flow, _ = diffeo.fit_table(table, preset=preset, max_seconds=asked.seconds, seed=asked.seed)
        found = [(q, *answer(flow, q, asked.seed)) for q in questions(law, drawn, asked.count, asked.seed)]
        for kind in ("mean", "probability", "density"):
            of_kind = [each for each in found if each[0].kind == kind]
            if of_kind:
                yield {"law": name, "answers": kind, **summary(of_kind)}
    if asked.data:
        yield adult(asked)


def adult(asked: Namespace) -> kit.Row:
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    paths = [kit.folder(asked, "mixed") / f"adult_{part}.csv" for part in ("train", "test")]
    train, test = (diffeo.Table.read(path) for path in paths)
    flow, _ = diffeo.fit_table(train, max_seconds=asked.seconds, seed=asked.seed)
    model = tables.predict_proba(flow, test, "class").column(">50K")
    x, y = (pd.read_csv(path) for path in paths)
    rich = y.pop("class") == ">50K"
    levels = {
        name: pd.CategoricalDtype(x[name].dropna().unique()) for name in y if x[name].dtype.kind not in "if"
    }
    booster = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0)
    booster.fit(x.drop(columns="class").astype(levels), x["class"] == ">50K")
    alone = booster.predict_proba(y.astype(levels))[:, 1]
    return {"law": "adult", "AUC": roc_auc_score(rich, model), "booster": roc_auc_score(rich, alone)}


OPTIONS = {"--laws": (list(LAWS), "of these"), "--count": (20, "questions of each kind")}
MEASUREMENT = Measurement(__doc__, rows, {"data": ..., "seconds": 120.0, "seed": 0}, OPTIONS)
