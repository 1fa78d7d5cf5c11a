"""Training."""

from diffeo.train.checkpoint import Checkpoint
from diffeo.train.images import fit_images
from diffeo.train.loop import Recipe, fit
from diffeo.train.report import Callback, FitReport, Progress
from diffeo.train.table import fit_table
from diffeo.train.watch import SampleGrids, TensorBoard

__all__ = [
    "Callback",
    "Checkpoint",
    "FitReport",
    "Progress",
    "Recipe",
    "SampleGrids",
    "TensorBoard",
    "fit",
    "fit_images",
    "fit_table",
]
