"""Tables: reading them, fitting a flow to one, scoring rows, drawing new ones."""

from diffeo.tables.baselines import baselines
from diffeo.tables.fit import TableReport, fit_table
from diffeo.tables.samples import sample_table
from diffeo.tables.schema import Schema
from diffeo.tables.scores import Scores, score_table
from diffeo.tables.table import Table

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
