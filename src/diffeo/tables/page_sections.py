"""The sections of a report's page, each from the figures it shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffeo.tables.boosting import Detection, Efficacy
from diffeo.tables.charts import bar_with_error, bars, histograms, pair_map, pair_of_bars
from diffeo.tables.comparison import ColumnShape, Copies, PairTrend
from diffeo.tables.likelihoods import Calibration, Gap, Nats, RareRow
from diffeo.tables.markup import cards, figure, name, safe, table, with_error

MEASURES = {"AUC": "AUC", "R2": "R&sup2;"}
_PAIRS, _TELLS, _MAPPED = 12, 10, 40
"""Pairs and columns that are shown, the worst ones, and the most columns of a map of pairs."""
_KEY = (
    '<ul class="key"><li><svg viewBox="0 0 30 16" aria-hidden="true"><path class="area" d="M1 15V3H29V15Z"/>'
    '<path class="edge" d="M1 15V3H29V15"/></svg>real rows</li><li><svg viewBox="0 0 30 16" '
    'aria-hidden="true"><path class="step" d="M1 13H11V4H20V9H29"/></svg>synthetic rows</li></ul>'
)


def schema(cells: Sequence[Sequence[str]]) -> str:
    """What each column was taken for."""
    rows = ([name(row[0]), *map(safe, row[1:])] for row in cells[1:])
    return table("Columns as the model knows them", cells[0], rows)


def likelihood(found: Sequence[Nats], gap: Gap | None) -> str:
    """Held-out nats beside plain densities, and whether training rows have more."""
    rows = [
        [safe(n.name), with_error(n.mean, n.error), with_error(n.gain, n.gain_error, "+.3f") if i else ""]
        for i, n in enumerate(found)
    ]
    head = "", "mean", "the model is above it by"
    said = table("Held-out log-likelihood, nats a row; higher is better", head, rows, (1, 2), "scroll short")
    if lost := found[0].lost:
        said += f'<p class="note">{lost:,} held-out rows have no finite score: they are not in the means.</p>'
    if gap is None:
        return said
    if gap.gap > 2 * gap.error:
        words = (
            "Chance does not explain that: the model knows its training rows better than other rows, and has "
            "learned something of them by heart."
        )
    else:
        words = "Chance explains that: the model knows other rows as well as those it was trained on."
    return said + (
        f"<p>Rows that it was trained on score {with_error(gap.gap, gap.error)} nats above rows held out "
        f"({figure(gap.train)} and {figure(gap.held_out)}). {words} Only a model with a likelihood can be "
        f"asked this.</p>"
    )


def shapes(columns: Sequence[ColumnShape]) -> str:
    """Every column, real against synthetic."""
    said = f"<p>The least alike come first. The outermost bars have the tails, too.</p>{_KEY}"
    for kind, title in (("number", "Numbers and times"), ("category", "Categories")):
        worst = sorted((c for c in columns if c.kind == kind), key=lambda column: -column.distance)
        if worst:
            said += f"<h3>{title}</h3>" + cards([f"<li>{_card(column)}</li>" for column in worst])
    return said


def _card(column: ColumnShape) -> str:
    said = f"distance {column.distance:.3f}"
    if column.held_out is not None:
        said += f", of rows held out {column.held_out:.3f}"
    if column.missing or column.synthetic_missing:
        said += f"; missing {column.missing:.1%} real, {column.synthetic_missing:.1%} synthetic"
    if column.heap is not None:
        shares = f"{column.heap_share:.1%} real, {column.synthetic_heap_share:.1%} synthetic"
        said += f"; {safe(column.heap)} in {shares}, drawn without"
    said = f"<h4>{name(column.name)}</h4><p>{said}</p>"
    if column.ends is None:
        return said + _levels(column)
    low, high = column.ends
    label = f"Histograms of {column.name} from {low} to {high}, real and synthetic"
    return (
        f"{said}<figure>{histograms(column.shares, column.synthetic_shares, label)}"
        f'<figcaption class="ends"><span>{safe(low)}</span><span>{safe(high)}</span></figcaption></figure>'
    )


def _levels(column: ColumnShape) -> str:
    top = max(*column.shares, *column.synthetic_shares, 1e-12)
    rows = "".join(
        f'<tr><th scope="row">{name(str(level))}</th><td class="bars">{pair_of_bars(a, b, top)}</td>'
        f'<td class="number">{a:.1%}<br>{b:.1%}</td></tr>'
        for level, a, b in zip(column.bars, column.shares, column.synthetic_shares, strict=True)
    )
    head = '<th scope="col">level</th><th scope="col">bars</th><th scope="col">real, synthetic</th>'
    return (
        f'<table class="levels"><caption>Shares of {name(column.name)}</caption>'
        f'<thead class="hidden"><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )


def pairs(columns: Sequence[ColumnShape], found: Sequence[PairTrend]) -> str:
    """A map of all pairs, and the worst of them."""
    if not found:
        return "<p>There is no pair of columns to compare.</p>"
    held = any(p.held_out is not None for p in found)
    head = ["pair", "alike", *(["of rows held out"] if held else []), "correlation, real", "synthetic"]
    rows = [
        [
            f"{name(p.first)} and {name(p.second)}",
            figure(p.similarity),
            *([figure(p.held_out)] if held else []),
            figure(p.correlation, "+.2f"),
            figure(p.synthetic_correlation, "+.2f"),
        ]
        for p in found[:_PAIRS]
    ]
    worst = "furthest below what rows held out have" if held else "the least alike"
    return _map(columns, found) + table(f"Pairs of columns, {worst} first", head, rows, range(1, len(head)))


def _map(columns: Sequence[ColumnShape], found: Sequence[PairTrend]) -> str:
    names = [column.name for column in columns]
    if not 2 < len(names) <= _MAPPED:
        return ""
    at, lacking = {key: i for i, key in enumerate(names)}, np.full((len(names), len(names)), np.nan)
    for p in found:
        lacking[at[p.first], at[p.second]] = lacking[at[p.second], at[p.first]] = 1 - p.similarity
    strongest = max(0.05, float(np.nanmax(lacking)))
    label = f"How alike each pair of {len(names)} columns is; the full color is {1 - strongest:.2f}"
    return (
        f"<p>The stronger a cell's color, the less alike the two columns go together in synthetic rows as in "
        f"real ones: none is 1.00, the full color {1 - strongest:.2f}.</p>"
        f'<div class="scroll fit" role="region" aria-label="Map of pairs" tabindex="0"><div class="map">'
        f"{pair_map(names, lacking, strongest, label)}</div></div>"
    )


def apart(found: Detection | None) -> str:
    """How well boosted trees tell the rows apart, and by which columns."""
    if found is None:
        return "<p>There are too few rows to tell: at least 20 of each table are wanted.</p>"
    tells = found.tells[:_TELLS]
    top = max(tell.loss + tell.error for tell in tells)
    rows = [
        [name(t.name), bar_with_error(t.loss, t.error, top), with_error(t.loss, t.error, ".4f")]
        for t in tells
    ]
    return (
        f"<p>Boosted trees were trained to tell {found.rows:,} real rows from as many synthetic ones. On "
        f"rows they had not seen their AUC is <b>{with_error(found.auc, found.error)}</b>; a guess has 0.5, "
        f"certainty 1. As a score, 1 where they cannot be told apart, that is <b>{found.score:.3f}</b>.</p>"
    ) + table(
        "Columns that gave it away: what the AUC loses when one is shuffled",
        ("column", "", "loss"),
        rows,
        (2,),
    )


def target(found: Efficacy | None) -> str:
    """A model trained on synthetic rows beside one trained on real ones."""
    if found is None:
        return "<p>There is nothing to predict: the rows are too few, or no column is fit for it.</p>"
    rows = [
        ["real rows", with_error(found.real, found.real_error)],
        ["synthetic rows", with_error(found.synthetic, found.synthetic_error)],
        ["difference", with_error(found.synthetic - found.real, found.gap_error, "+.3f")],
    ]
    head = "trained on", MEASURES[found.measure]
    return (
        f"<p>One model was trained on {found.rows:,} real rows and one on as many synthetic ones, each to "
        f"predict {name(found.target)} from the other columns. Both are tested on the same {found.tested:,} "
        f"real rows.</p>"
    ) + table("The better the model, the more its training rows taught", head, rows, (1,), "scroll short")


def calibration(columns: Sequence[Calibration], scores: Calibration) -> str:
    """Whether values lie where the model expects them."""
    said = (
        "<p>Where a model is right, each value of a row it has not seen is as likely to lie in any twentieth "
        "of what the model expected as in any other. Bars that rise in the middle tell of a model too wide, "
        "at both ends of one too narrow, to one side of one that is shifted. The dashed line is what is "
        "right.</p>"
    )
    if not columns:
        said += "<p>This model does not tell of single columns; here is how its score of whole rows does.</p>"
    return said + cards([_pits(c) for c in (*columns, scores)], "cards small")


def _pits(c: Calibration) -> str:
    chance = "no more than chance" if c.distance <= c.chance else f"chance has at most {c.chance:.3f}"
    label = f"Twenty bars for {c.name}, from {min(c.shares):.1%} to {max(c.shares):.1%}"
    return (
        f"<li><h3>{name(c.name)}</h3><p>off by {c.distance:.3f}: {chance}</p><figure>"
        f"{bars(c.shares, 1 / len(c.shares), label)}"
        f'<figcaption class="ends"><span>0</span><span>1</span></figcaption></figure></li>'
    )


def copies(found: Copies, rows: int) -> str:
    """Copies, and what they do not say."""
    held = "" if found.held_out is None else f" Of the rows held out {found.held_out:.2%} do."
    return (
        f"<p>{found.rows:,} of {rows:,} synthetic rows ({found.share:.2%}) equal a real row in every "
        f"column.{held}</p>"
        '<p class="note">This counts copies. It does not measure privacy, and neither does the distance to '
        "the closest record: attacks that find out whether somebody was among the training rows succeed "
        "where no synthetic row is near to a real one, since they ask for the density around a person and "
        "not for a neighbor. A promise about privacy needs training that gives one, such as differential "
        "privacy.</p>"
    )


def rare(rows: Sequence[RareRow]) -> str:
    """The rarest rows, with the columns that make them rare."""
    head = "row", "because of", "log-likelihood", "held-out rows no likelier", "part"
    cells = []
    for r in rows:
        why = (f"{name(w.column)} = {name(w.value)} ({figure(w.nats, '+.1f')} nats)" for w in r.reasons)
        reasons = f'<span class="why">{"; ".join(why) or "no single column"}</span>'
        quantile = "" if r.quantile is None else f"{r.quantile:.2%}"
        part = f'<span class="whole">{"held out" if r.held_out else "training"}</span>'
        cells.append([f"{r.row:,}", reasons, figure(r.log_prob, ".2f"), quantile, part])
    return (
        "<p>Beside a column that makes a row rare stands by how many nats the row would be likelier with the "
        "values of other rows in that place, on average.</p>"
    ) + table("Rows that the model thinks least likely, counted from 1", head, cells, (2, 3))


DEFINITIONS = """<dl>
<dt>Distance of a column</dt><dd>Numbers: the largest difference of the two distribution functions (Kolmogorov
and Smirnov). Categories: half the sum of the differences of all shares (total variation). Both are of the
entries that are there, from 0 to 1. Whole numbers of at most 20 values count as categories.</dd>
<dt>Pairs alike</dt><dd>Two numbers: 1 &minus; |<i>r</i> &minus; <i>s</i>| / 2 with their correlations in
real and synthetic rows. Else 1 less the total variation distance of the tables of counts, a missing entry
being a level of its own; numbers are taken in ten equal bins of the real range. These are the definitions of
sdmetrics.</dd>
<dt>AUC and score</dt><dd>Five folds: trees learn from four and are tested on the fifth. The
error is the standard error over the folds. The score is 1 &minus; (2 max(AUC, 1/2) &minus; 1).</dd>
<dt>Of rows held out</dt><dd>The same figure with real rows that were held out in place of the synthetic
ones: what chance does. Fewer rows have larger distances by chance alone.</dd>
<dt>Nats</dt><dd>Natural logarithms of a row's density, or probability where columns are discrete, in the
columns' own units. One nat is a factor of 2.7 in the probability of every row.</dd></dl>"""
