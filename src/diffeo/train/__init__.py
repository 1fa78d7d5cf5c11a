"""Training."""

from diffeo.train.checkpoint import Checkpoint
from diffeo.train.distillation import DistillReport, Judgment, distill, judge
from diffeo.train.images import fit_images
from diffeo.train.loop import Recipe, fit
from diffeo.train.report import Callback, FitReport, Progress
from diffeo.train.table import fit_table
from diffeo.train.target import TargetReport, fit_target
from diffeo.train.watch import SampleGrids, TensorBoard

__all__ = [
    "Callback",
    "Checkpoint",
    "DistillReport",
    "FitReport",
    "Judgment",
    "Progress",
    "Recipe",
    "SampleGrids",
    "TensorBoard",
    "distill",
    "fit",
    "fit_images",
    "fit_table",
    "judge",
    "TargetReport",
    "fit_target",
]
