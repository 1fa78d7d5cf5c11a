"""diffeo: normalizing flows on PyTorch.

An invertible network carries a simple base density onto the data, and the log-density of every data
point is exact: ``log p(x) = log p_base(f(x)) + log|det df/dx|``.

Everything here is loaded when it is first used, so ``import diffeo`` costs next to nothing.

Example:
    >>> import diffeo
    >>> sorted(set(diffeo.__all__) & {"Flow", "fit", "load", "presets"})
    ['Flow', 'fit', 'load', 'presets']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "Flow": "flow",
    "fit": "train",
    "fit_table": "train",
    "fit_images": "train",
    "fit_target": "train",
    "distill": "train",
    "FitReport": "train",
    "Likelihood": "objectives",
    "ReverseKL": "objectives",
    "save": "io",
    "load": "io",
    "Table": "data",
    "bits_per_dim": "encodings",
}
"""Each public name that is not itself a module, and the module it lives in."""

__all__ = [
    "Flow",
    "fit",
    "fit_table",
    "fit_images",
    "fit_target",
    "distill",
    "FitReport",
    "Likelihood",
    "ReverseKL",
    "save",
    "load",
    "Table",
    "bits_per_dim",
    "bijections",
    "elementwise",
    "nets",
    "bases",
    "encodings",
    "presets",
    "data",
    "latents",
    "latent_variables",
    "denoise",
    "guidance",
    "inference",
    "objectives",
    "io",
    "targets",
    "train",
    "testing",
    "plots",
    "functional",
    "errors",
]

if TYPE_CHECKING:
    from diffeo import (
        bases,
        bijections,
        data,
        denoise,
        elementwise,
        encodings,
        errors,
        functional,
        guidance,
        inference,
        io,
        latent_variables,
        latents,
        nets,
        objectives,
        plots,
        presets,
        targets,
        testing,
        train,
    )
    from diffeo.data import Table
    from diffeo.encodings import bits_per_dim
    from diffeo.flow import Flow
    from diffeo.io import load, save
    from diffeo.objectives import Likelihood, ReverseKL
    from diffeo.train import FitReport, distill, fit, fit_images, fit_table, fit_target


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(import_module(f"diffeo.{_NAMES[name]}"), name)
    elif name in __all__:
        value = import_module(f"diffeo.{name}")
    else:
        raise AttributeError(f"module 'diffeo' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
