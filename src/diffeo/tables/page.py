"""The page of a report: one HTML file that loads nothing and runs nothing, however the columns are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffeo.tables import page_sections as sections
from diffeo.tables.markup import figure, name, safe, with_error

if TYPE_CHECKING:
    from diffeo.tables.quality import Report

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_ROWS = {"real": "real rows", "synthetic": "synthetic rows", "test": "rows held out"}


def page(report: Report) -> str:
    """The page of a report."""
    found = report.comparison
    parts = {
        "What each column was taken for": sections.schema(report.schema),
        "How likely are rows it has not seen?": sections.likelihood(report.nats, report.gap),
        "Columns, one by one": sections.shapes(found.columns),
        "Columns, two by two": sections.pairs(found.columns, found.pairs),
        "Can they be told apart?": sections.apart(found.detection),
        "Do they teach the same?": sections.target(found.efficacy),
        "Are its probabilities right?": sections.calibration(report.calibration, report.likelihoods),
        "Copies": sections.copies(found.copies, found.rows["synthetic"]),
        "The rarest rows": sections.rare(report.rare),
        "How it was measured": sections.DEFINITIONS,
    }
    links = "".join(f'<li><a href="#s{i}">{title}</a></li>' for i, title in enumerate(parts, 1))
    body = "".join(
        f'<section id="s{i}" aria-labelledby="t{i}"><h2 id="t{i}">{title}</h2>{inside}</section>'
        for i, (title, inside) in enumerate(parts.items(), 1)
    )
    tiles = "".join(
        f'<li><strong>{value}</strong><span class="what">{what}</span><p>{words}</p></li>'
        for value, what, words in _tiles(report)
    )
    notes = "".join(f'<p class="note">{safe(note)}</p>' for note in (*report.notes, *found.notes))
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    counts = ", ".join(f"{count:,} {_ROWS[key]}" for key, count in found.rows.items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="color-scheme" content="light dark">'
        f"<title>Is the model any good?</title><style>{style}</style></head>"
        f'<body><a class="skip" href="#figures">To the figures</a>'
        f"<header><h1>Is the model any good?</h1><p>{counts}, {len(found.columns)} columns.</p>"
        f'<p class="soft">{_run(report.model)}</p>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>'
        f'<main id="figures" tabindex="-1"><ul class="tiles" aria-label="In short">{tiles}</ul>{notes}{body}'
        f"</main><footer>Written by diffeo. This file stands for itself: it loads nothing and runs nothing."
        f"</footer></body></html>\n"
    )


def _run(model: Mapping[str, Any]) -> str:
    """What the model is, and how its run went, as far as its notes say."""
    said = [f"{model['preset']}, {model['parameters']:,} parameters"]
    if "rows" in model and "date" in model:
        said.append(f"fitted to {model['rows']} rows on {model['date']}")
    said += [f"{model[unit]} {unit}" for unit in ("steps", "seconds") if unit in model]
    said += [f"seed {model['seed']}"] if "seed" in model else []
    return safe("; ".join(said))


def _tiles(report: Report) -> Iterator[tuple[str, str, str]]:
    """The figures in short: each with its name and what to make of it."""
    found, model = report.comparison, report.nats[0]
    if d := found.detection:
        word = (
            "are hard to tell" if d.score >= 0.9 else "can be told" if d.score >= 0.6 else "are easily told"
        )
        yield (
            f"{d.score:.2f}",
            f"Real and synthetic rows {word} apart",
            f"A booster has AUC {with_error(d.auc, d.error)}. 1.00 is the best: no better than a guess.",
        )
    yield f"{found.shape:.3f}", "Columns alike", "Mean over the columns; 1 is the best."
    if found.trend is not None:
        yield f"{found.trend:.3f}", "Pairs alike", "Mean over all pairs of columns; 1 is the best."
    if best := min(report.nats[1:], key=lambda each: each.gain, default=None):
        yield (
            figure(best.gain, "+.2f"),
            f"Nats a row above {safe(best.name)}",
            f"Standard error {best.gain_error:.2f}. The model has {with_error(model.mean, model.error)} nats "
            f"a held-out row.",
        )
    if e := found.efficacy:
        yield (
            figure(e.synthetic),
            f"{sections.MEASURES[e.measure]} from synthetic rows",
            f"To predict {name(e.target)} of real rows; real rows teach {figure(e.real)}.",
        )
    if g := report.gap:
        yield (
            figure(g.gap, "+.2f"),
            "Nats a row more for rows it was trained on",
            f"Standard error {g.error:.2f}. Near 0 is the best: it has not learned rows by heart.",
        )
    held = "" if found.copies.held_out is None else f" Of rows held out it is {found.copies.held_out:.2%}."
    yield f"{found.copies.share:.2%}", "Synthetic rows that are copies", f"They equal a real row.{held}"
