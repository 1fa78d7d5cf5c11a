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

from typing import TYPE_CHECKING

from diffeo._lazy import lazily
from diffeo._version import __version__ as __version__

_NAMES = {
    "Flow": "flow",
    "fit": "train",
    "fit_table": "tables",
    "fit_images": "images",
    "fit_target": "inference",
    "distill": "distillation",
    "FitReport": "train",
    "Likelihood": "objectives",
    "ReverseKL": "inference",
    "save": "io",
    "load": "io",
    "Table": "tables",
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
    "contexts",
    "contracts",
    "presets",
    "objectives",
    "targets",
    "train",
    "io",
    "tables",
    "images",
    "inference",
    "distillation",
    "latents",
    "autoencoders",
    "interop",
    "testing",
    "plots",
    "functional",
    "errors",
]

if TYPE_CHECKING:
    from diffeo import (
        autoencoders,
        bases,
        bijections,
        contexts,
        contracts,
        distillation,
        elementwise,
        encodings,
        errors,
        functional,
        images,
        inference,
        interop,
        io,
        latents,
        nets,
        objectives,
        plots,
        presets,
        tables,
        targets,
        testing,
        train,
    )
    from diffeo.distillation import distill
    from diffeo.encodings import bits_per_dim
    from diffeo.flow import Flow
    from diffeo.images import fit_images
    from diffeo.inference import ReverseKL, fit_target
    from diffeo.io import load, save
    from diffeo.objectives import Likelihood
    from diffeo.tables import Table, fit_table
    from diffeo.train import FitReport, fit


__getattr__, __dir__ = lazily(__name__, _NAMES, [*__all__, "__version__"])
