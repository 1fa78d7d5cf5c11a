"""Headers of earlier releases, brought to today's form."""

from __future__ import annotations

from typing import Any


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
