"""Headers of earlier releases, brought to today's form."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from diffeo.functional.tails import NO_END


def modernize(about: dict[str, Any]) -> dict[str, Any]:
    """What a header says in today's words; the one place that knows how files were written before.

    A change of the format stands here as one step that finds the old form by what it holds, and has a file of
    the release before it in ``tests/golden``.
    """
    return _identity_tails(_quantiles_to_notes(about))


def _quantiles_to_notes(about: dict[str, Any]) -> dict[str, Any]:
    """0.1.0 kept the quantiles of the training rows' scores in a table's encoding, with every digit."""
    encoding = about["encoding"] or {}
    spec = encoding.get("spec")
    if encoding.get("kind") != "Columns" or not isinstance(spec, dict) or "score_quantiles" not in spec:
        return about
    quantiles = spec["score_quantiles"]
    found = {} if quantiles is None else {"score quantiles": quantiles}
    spec = {key: value for key, value in spec.items() if key != "score_quantiles"}
    return {**about, "encoding": {**encoding, "spec": spec}, "notes": {**about["notes"], **found}}


def _identity_tails(about: dict[str, Any]) -> dict[str, Any]:
    """0.1.0's first spline flows had no location and scale behind their splines."""
    recipe = about["recipe"] or {}
    fields = recipe.get("fields")
    if recipe.get("preset") not in ("NSF", "CouplingNSF", "Tabular") or not isinstance(fields, dict):
        return about
    if "max_scale" in fields:
        return about
    return {**about, "recipe": {**recipe, "fields": {**fields, "max_scale": 1.0}}}


_NEUTRAL = {"ends": NO_END, "reach": math.inf}
"""Tensors that older files lack, by the last part of their name, and what makes them of no effect."""


def is_neutral(name: str) -> bool:
    """Whether an older file may lack this tensor."""
    return name.rpartition(".")[2] in _NEUTRAL


def with_neutral(tensors: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors, and of those that it lacks the ones that change nothing."""
    lacking = {name: value for name, value in state.items() if name not in tensors and is_neutral(name)}
    return tensors | {n: torch.full_like(v, _NEUTRAL[n.rpartition(".")[2]]) for n, v in lacking.items()}
