"""Data: tables, their scores and samples, toys with exact entropies, plain densities to beat."""

from diffeo.data.baselines import baselines
from diffeo.data.samples import sample_table
from diffeo.data.schema import Schema
from diffeo.data.scores import Scores, score_table
from diffeo.data.tables import Table
from diffeo.data.toys import TOYS, Toy

__all__ = ["TOYS", "Schema", "Scores", "Table", "Toy", "baselines", "sample_table", "score_table"]
