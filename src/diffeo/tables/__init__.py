"""Tables: reading them, fitting a flow to one, scoring rows, drawing new ones.

Each name is loaded when it is first used: a table that cannot be read is refused before torch is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffeo._lazy import lazily

_NAMES = {
    "Schema": "schema",
    "Scores": "scores",
    "Table": "table",
    "TableReport": "fit",
    "baselines": "gaussians",
    "fit_table": "fit",
    "sample_table": "samples",
    "score_table": "scores",
}

__all__ = [
    "Schema",
    "Scores",
    "Table",
    "TableReport",
    "baselines",
    "fit_table",
    "sample_table",
    "score_table",
]

if TYPE_CHECKING:
    from diffeo.tables.fit import TableReport, fit_table
    from diffeo.tables.gaussians import baselines
    from diffeo.tables.samples import sample_table
    from diffeo.tables.schema import Schema
    from diffeo.tables.scores import Scores, score_table
    from diffeo.tables.table import Table

__getattr__, __dir__ = lazily(__name__, _NAMES, __all__)
