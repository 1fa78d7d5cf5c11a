"""The rows of the feature table, and how a probe says what it saw.

A probe runs one library and answers ``(verdict, what was seen)``. Where a thing is absent, what was seen says
what was looked for.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

YES, PARTLY, NO = "yes", "partly", "no"
Seen = tuple[str, str]
LIBRARIES = ("diffeo", "zuko", "nflows", "normflows", "FlowJAX", "FrEIA", "Pyro")
PACKAGES = {
    "zuko": "zuko",
    "nflows": "nflows",
    "normflows": "normflows",
    "FlowJAX": "flowjax",
    "FrEIA": "FrEIA",
    "Pyro": "pyro.distributions.transforms",
}


@dataclass(frozen=True)
class Row:
    """A feature: what it is, how it was probed, and the tests that hold diffeo to it."""

    key: str
    title: str
    probe: str
    tests: tuple[str, ...] = ()
    """None where diffeo does not have it."""


ROWS = (
    Row(
        "log_det",
        "Log-det equals that of autograd's Jacobian",
        "an affine coupling flow of 4 columns with random weights, in float64: largest difference below 1e-8",
        (
            "tests/test_peers.py::test_log_det_is_that_of_the_autograd_jacobian",
            "tests/test_conformance.py::test_bijections",
        ),
    ),
    Row(
        "stress",
        "float32 splines invertible under extreme parameters",
        "200 rational-quadratic splines of 8 bins with logits of ±10, 101 points each: finite, and each "
        "error of the round trip within 64 eps (B + B / f'(x)), B half the box",
        (
            "tests/test_peers.py::test_float32_spline_survives_stress",
            "tests/elementwise/test_simple_families.py::test_round_trips_keep_their_bound_with_extreme_parameters",
        ),
    ),
    Row(
        "far",
        "Monotone nets inverted at any distance",
        "a monotone network's inverse of f(±40), relative error below 1e-3",
        (
            "tests/test_peers.py::test_inverse_reaches_any_distance",
            "tests/elementwise/test_monotone.py::test_inverses_are_certified_under_stress",
        ),
    ),
    Row(
        "context",
        "Context in affine and spline, coupling and autoregressive layers",
        "each of the four built with a context of 2; whether the log-density follows it",
        ("tests/test_peers.py::test_every_preset_honors_its_context",),
    ),
    Row(
        "both_ways",
        "Autoregressive flows fast both ways",
        "5 affine autoregressive layers of 32 columns, 256 rows, one thread: of log_prob and sample the "
        "slower takes less than 6 times as long",
        ("tests/test_steppers.py::test_stepper_is_full_passes",),
    ),
    Row(
        "compile",
        "Spline flows captured whole by the compiler",
        'torch.compile(..., fullgraph=True, backend="eager") of log_prob; jax.jit for FlowJAX',
        ("tests/test_peers.py::test_a_whole_flow_is_captured",),
    ),
    Row(
        "continuous",
        "Continuous flows",
        "log_prob of a continuous flow runs",
        ("tests/bijections/test_continuous.py::*", "tests/test_conformance.py::test_presets"),
    ),
    Row(
        "residual",
        "Contractive residual flows (i-ResNet)",
        "a residual layer runs, and is inverted to 1e-3",
        ("tests/bijections/test_contractive.py::test_the_slowest_contraction_comes_back",),
    ),
    Row(
        "images",
        "Image flows with several scales",
        "a flow of 3 x 8 x 8 images that squeezes, couples by a convolutional net and splits, there and back",
        ("tests/bijections/test_images.py::*", "tests/presets/test_image_presets.py::*"),
    ),
    Row(
        "circular",
        "Circular variables",
        "a spline flow on angles runs",
        ("tests/test_peers.py::test_circular_flow_has_no_density_outside_the_circle",),
    ),
    Row(
        "deterministic",
        "log_prob deterministic in evaluation, also of residual flows",
        "log_prob of the library's flows, twice in evaluation mode",
        ("tests/objectives/test_objectives.py::test_evaluation_is_deterministic_and_training_is_not",),
    ),
    Row(
        "dequantization",
        "Variational dequantization",
        "names searched",
        ("tests/encodings/test_dequantization.py::test_it_learns_a_tighter_bound",),
    ),
    Row(
        "memory",
        "Training memory that does not grow with depth",
        "bytes kept for the backward pass by 16 affine couplings over those by 4, without weights: below 1.5",
        ("tests/bijections/test_reversible.py::test_memory_does_not_grow_with_depth",),
    ),
    Row(
        "tables",
        "Tables with mixed columns, from the command line",
        "console scripts of the installed package",
        (
            "tests/encodings/test_columns.py::test_round_trip_of_mixed_columns",
            "tests/cli/test_cli.py::*",
        ),
    ),
    Row(
        "trainer",
        "Trainer with validation and early stopping",
        "a training function runs; names searched",
        ("tests/train/test_fit.py::test_a_run_that_only_memorizes_stops_early",),
    ),
    Row(
        "resume",
        "Training that resumes where it stopped",
        "names searched",
        ("tests/train/test_checkpoint.py::test_a_resumed_run_reports_as_one_never_stopped",),
    ),
    Row(
        "files",
        "Model files without pickle that rebuild the model",
        "names searched; what the documented way writes",
        ("tests/test_io.py::*",),
    ),
    Row(
        "targets",
        "Fits densities that can only be evaluated",
        "its own loss or trainer for an unnormalized density runs",
        ("tests/train/test_fit_target.py::*",),
    ),
    Row(
        "evidence",
        "log Z and effective sample size of such a fit",
        "names searched, and what was found run",
        (
            "tests/inference/test_importance.py::test_the_error_of_log_z_is_its_spread",
            "tests/inference/test_annealing.py::test_the_mean_weight_is_the_evidence",
        ),
    ),
    Row(
        "vae",
        "Autoencoders with flow posteriors",
        "a ready model or loss runs or is named; partly: of parts, by hand",
        ("tests/latent_variables/test_posteriors.py::*", "tests/latent_variables/test_autoencoder.py::*"),
    ),
    Row("graph", "Free graphs of invertible blocks", "a graph that splits and joins, there and back"),
    Row("program", "Part of a probabilistic programming language", "a flow as a site of a model runs"),
    Row("stochastic", "Stochastic layers (Metropolis-Hastings in the flow)", "names searched"),
    Row("block", "Block neural autoregressive flows", "a flow of them runs"),
    Row("jax", "On JAX: jit, vmap and grad of the whole flow, TPUs", "what it is written on"),
)
"""In ``tests``, ``::*`` is all tests of a file."""


def names(package: str, pattern: str) -> list[str]:
    """Public classes and functions of a package whose names match."""
    root = import_module(package)
    modules = [root]
    for info in pkgutil.walk_packages(getattr(root, "__path__", []), package + "."):
        if not re.search(r"test|numpyro", info.name):
            modules.append(import_module(info.name))
    top = package.split(".")[0]
    found = {
        name
        for module in modules
        for name, thing in vars(module).items()
        if isinstance(thing, Callable)
        and (getattr(thing, "__module__", "") or "").split(".")[0] == top
        and not name.startswith("_")
    }
    found |= {
        f"{n}.{m}"
        for module in modules
        for n, c in vars(module).items()
        if isinstance(c, type) and c.__module__.split(".")[0] == top
        for m in vars(c)
        if not m.startswith("_")
    }
    return sorted(n for n in found if re.search(pattern, n, re.I))


def absent(library: str, pattern: str) -> Seen:
    """A "no", if no name matches; otherwise an error, so that it is looked at again."""
    found = names(PACKAGES[library], pattern)
    if found:
        raise AssertionError(f"{library} has {found}")
    return NO, f"no name like `{pattern}`"
