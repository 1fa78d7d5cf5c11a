"""Training."""

from diffeo.train.checkpoint import Checkpoint
from diffeo.train.loop import Recipe, fit
from diffeo.train.report import Callback, FitReport, Progress
from diffeo.train.table import fit_table

__all__ = ["Callback", "Checkpoint", "FitReport", "Progress", "Recipe", "fit", "fit_table"]
