"""Draws as ArviZ has them: a ``DataTree`` of named parameters, in memory or as NetCDF."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from diffeo._files import replacing
from diffeo.errors import ConfigError, ShapeError
from diffeo.functional.seeding import generator
from diffeo.inference.importance import Importance
from diffeo.targets import Target, named


def to_datatree(
    target: Target,
    x: Tensor | Importance,
    *,
    log_prob: Tensor | None = None,
    statistics: dict[str, Tensor] | None = None,
) -> Any:
    """Draws by the target's own names, on its own scale, as an ``xarray.DataTree`` in ArviZ' layout.

    Group ``posterior`` has each parameter with the dimensions chain and draw first; group ``sample_stats``
    what is known of each draw, such as ``lp``, the log-density of the unconstrained row. Draws with weights
    are none of the posterior: they are in a group ``proposal``, with their ``log_weight``, and ``posterior``
    has as many that are resampled by weight, by a fixed seed. Names that ArviZ needs itself, ``chain`` and
    ``draw``, end in an underscore here; slashes become one.

    Args:
        target: ``Parameters`` name their values; those of others are called x.
        x: unconstrained rows: ``(rows, D)``, which count as one chain, or ``(chains, draws, D)``, or rows
            with weights.
        log_prob: the target's log-density, ``x.shape[:-1]``.
        statistics: further numbers a draw, by ArviZ' names.

    Raises:
        ShapeError: where shapes do not fit.
        DataError: where all weights are zero.
        ConfigError: without ArviZ.

    Example:
        >>> import torch
        >>> from diffeo.targets import FromTorch
        >>> tree = to_datatree(FromTorch(lambda x: -x.square().sum(-1)), torch.zeros(4, 100, 3))
        >>> dict(tree["posterior"].sizes)
        {'chain': 4, 'draw': 100, 'x_dim_0': 3}
    """
    arviz_base = library()
    groups = {}
    if isinstance(x, Importance):
        groups["proposal"] = {**_named(target, x.x), "log_weight": x.log_weights.cpu().numpy()[None]}
        x = x.resample(len(x), generator=generator(0, x.x.device))
    groups["posterior"] = _named(target, x)
    stats = {}
    for name, values in {"lp": log_prob, **(statistics or {})}.items():
        if values is None:
            continue
        if values.shape != x.shape[:-1]:
            raise ShapeError(f"{name} has shape {tuple(values.shape)}, but draws {tuple(x.shape[:-1])}.")
        stats[name] = values.detach().cpu().reshape(_batch(x)).numpy()
    if stats:
        groups["sample_stats"] = stats
    return arviz_base.from_dict(groups, check_conventions=False)


def library() -> ModuleType:
    """What makes trees and NetCDF of draws; a ``ConfigError`` with the cure where it is not installed."""
    try:
        import arviz_base
    except ImportError:
        raise ConfigError("draws as ArviZ has them need it: pip install 'diffeo[inference]'") from None
    return arviz_base


def _batch(x: Tensor) -> tuple[int, ...]:
    """Chains and draws."""
    if x.dim() not in (2, 3):
        raise ShapeError(
            f"draws are rows (rows, D) or chains (chains, draws, D), but x has shape {tuple(x.shape)}."
        )
    return (1, *x.shape[:1]) if x.dim() == 2 else tuple(x.shape[:2])


def _named(target: Target, x: Tensor) -> dict[str, np.ndarray]:
    """Each parameter's values, ``(chains, draws, *shape)``."""
    batch = _batch(x)
    parts = named(target, x.detach().reshape(-1, x.shape[-1]))
    return {_free(name): value.reshape(*batch, *value.shape[1:]) for name, value in parts.items()}


def _free(name: str) -> str:
    """A name that ArviZ leaves to parameters."""
    return f"{name}_" if name in ("chain", "draw", "log_weight") else name.replace("/", "_")


def save_netcdf(tree: Any, path: str | os.PathLike[str]) -> None:
    """A ``DataTree`` as a NetCDF file, whole or not at all; ArviZ' and xarray's ``open_datatree`` read it."""
    content = tree.to_netcdf()
    with replacing(path) as file:
        file.write(content)
