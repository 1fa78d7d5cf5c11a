"""Training."""

from diffeo.train.checkpoint import Checkpoint
from diffeo.train.loop import Recipe, fit
from diffeo.train.report import Callback, FitReport, Progress

__all__ = ["Callback", "Checkpoint", "FitReport", "Progress", "Recipe", "fit"]
