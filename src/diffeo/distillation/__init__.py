"""Distillation: one flow fitted to another."""

from diffeo.distillation.fit import DistillReport, Judgment, distill, judge, student_preset
from diffeo.distillation.objectives import BothKL, LayerByLayer

__all__ = ["BothKL", "DistillReport", "Judgment", "LayerByLayer", "distill", "judge", "student_preset"]
