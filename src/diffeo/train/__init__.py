"""The engine that every fit shares: one loop, its schedule, its checkpoints, its reports."""

from diffeo.train.checkpoint import Checkpoint
from diffeo.train.data import Rows
from diffeo.train.loop import Recipe, fit
from diffeo.train.report import Callback, FitReport, Progress

__all__ = ["Callback", "Checkpoint", "FitReport", "Progress", "Recipe", "Rows", "fit"]
