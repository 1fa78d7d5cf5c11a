"""The engine that every fit shares: one loop, its options, schedule, checkpoints and reports."""

from diffeo.train.checkpoint import Checkpoint
from diffeo.train.loop import fit
from diffeo.train.optimizer import OptimizerSettings
from diffeo.train.options import TrainingOptions
from diffeo.train.report import Callback, FitReport, Progress
from diffeo.train.rows import Rows, TensorRows

__all__ = [
    "Callback",
    "Checkpoint",
    "FitReport",
    "OptimizerSettings",
    "Progress",
    "Rows",
    "TensorRows",
    "TrainingOptions",
    "fit",
]
