"""Tables: reading them, fitting a flow to one, scoring rows, drawing new ones, answering questions, and
looking at whether it is any good.

Each name is loaded when it is first used: a table that cannot be read is refused before torch is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffeo._lazy import lazily

_NAMES = {
    "Comparison": "comparison",
    "Report": "quality",
    "Answer": "queries",
    "Estimate": "queries",
    "Schema": "schema",
    "Scores": "scores",
    "Table": "table",
    "TableReport": "fit",
    "baselines": "gaussians",
    "compare": "comparison",
    "fit_table": "fit",
    "report": "quality",
    "impute": "imputation",
    "log_density": "densities",
    "predict_proba": "densities",
    "query": "queries",
    "sample_table": "samples",
    "score_table": "scores",
}

__all__ = [
    "Comparison",
    "Report",
    "Answer",
    "Estimate",
    "Schema",
    "Scores",
    "Table",
    "TableReport",
    "baselines",
    "compare",
    "fit_table",
    "report",
    "impute",
    "log_density",
    "predict_proba",
    "query",
    "sample_table",
    "score_table",
]

if TYPE_CHECKING:
    from diffeo.tables.comparison import Comparison, compare
    from diffeo.tables.densities import log_density, predict_proba
    from diffeo.tables.fit import TableReport, fit_table
    from diffeo.tables.gaussians import baselines
    from diffeo.tables.imputation import impute
    from diffeo.tables.quality import Report, report
    from diffeo.tables.queries import Answer, Estimate, query
    from diffeo.tables.samples import sample_table
    from diffeo.tables.schema import Schema
    from diffeo.tables.scores import Scores, score_table
    from diffeo.tables.table import Table

__getattr__, __dir__ = lazily(__name__, _NAMES, __all__)
