"""Draws as ArviZ has them: a ``DataTree`` of named parameters, in memory or as NetCDF."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor

from diffeo._files import replacing
from diffeo.errors import ConfigError, ShapeError
from diffeo.targets import Target, draws


def datatree(
    target: Target,
    x: Tensor,
    *,
    log_weights: Tensor | None = None,
    log_prob: Tensor | None = None,
    statistics: dict[str, Tensor] | None = None,
) -> Any:
    """Draws by the target's own names, on its own scale, as an ``xarray.DataTree`` in ArviZ' layout.

    Group ``posterior`` has each parameter with the dimensions chain and draw first; group ``sample_stats``
    what is known of each draw: ``lp`` (log-density of the unconstrained row) and ``log_weight``.

    Args:
        target: ``Parameters`` name their values; those of others are called x.
        x: unconstrained rows: ``(rows, D)``, which count as one chain, or ``(chains, draws, D)``.
        log_weights: importance weights, ``x.shape[:-1]``.
        log_prob: the target's log-density, ``x.shape[:-1]``.
        statistics: further numbers a draw, by ArviZ' names.

    Raises:
        ShapeError: where shapes do not fit.
        ConfigError: without ArviZ.

    Example:
        >>> import torch
        >>> from diffeo.targets import FromTorch
        >>> tree = datatree(FromTorch(lambda x: -x.square().sum(-1)), torch.zeros(4, 100, 3))
        >>> dict(tree["posterior"].sizes)
        {'chain': 4, 'draw': 100, 'x_dim_0': 3}
    """
    try:
        import arviz_base
    except ImportError:
        raise ConfigError("draws as ArviZ has them need it: pip install 'diffeo[inference]'") from None
    if x.dim() not in (2, 3):
        raise ShapeError(
            f"draws are rows (rows, D) or chains (chains, draws, D), but x has shape {tuple(x.shape)}."
        )
    batch = (1, *x.shape[:1]) if x.dim() == 2 else x.shape[:2]
    known = {"lp": log_prob, "log_weight": log_weights, **(statistics or {})}
    stats = {}
    for name, values in known.items():
        if values is None:
            continue
        if values.shape != x.shape[:-1]:
            raise ShapeError(f"{name} has shape {tuple(values.shape)}, but draws {tuple(x.shape[:-1])}.")
        stats[name] = values.detach().cpu().reshape(batch).numpy()
    named = draws(target, x.detach().reshape(-1, x.shape[-1]))
    groups = {"posterior": {name: value.reshape(*batch, *value.shape[1:]) for name, value in named.items()}}
    if stats:
        groups["sample_stats"] = stats
    return arviz_base.from_dict(groups, check_conventions=False)


def save_netcdf(tree: Any, path: str | os.PathLike[str]) -> None:
    """A ``DataTree`` as a NetCDF file, whole or not at all; ArviZ' and xarray's ``open_datatree`` read it."""
    content = tree.to_netcdf()
    with replacing(path) as file:
        file.write(content)
