"""The rows of the feature table: what is asked, how it is probed, and the tests that hold diffeo to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A feature."""

    key: str
    title: str
    probe: str
    """What ran for whom, and what each verdict takes."""
    tests: tuple[str, ...]
    """Of diffeo: that it has the feature or, where it has not, that it is so. ``::*`` is all of a file."""


ELSE = "; where there is none, names searched"
HERE = "tests/house/test_features.py"

ROWS = (
    Row(
        "log_det",
        "Log-det equals that of autograd's Jacobian",
        "an affine coupling flow of 4 columns with random weights, in float64: largest difference below 1e-8",
        (
            "tests/contract/test_known_defects.py::test_log_det_is_that_of_the_autograd_jacobian",
            "tests/contract/test_conformance.py::test_bijections",
        ),
    ),
    Row(
        "stress",
        "float32 splines invertible under extreme parameters, to the accuracy their slopes allow",
        "200 rational-quadratic splines of 8 bins with logits of ±10, 101 points each: finite, and each "
        "error of the round trip within 64 eps (B + B / f'(x)), B half the box. Rounding y alone "
        "moves x by up to 0.1 where the slope is 1e-6" + ELSE,
        (
            "tests/contract/test_known_defects.py::test_float32_spline_survives_stress",
            "tests/elementwise/test_simple_families.py::test_round_trips_keep_their_bound_with_extreme_parameters",
        ),
    ),
    Row(
        "far",
        "Monotone nets inverted at any distance",
        "a monotone network's inverse of f(±40), relative error below 1e-3" + ELSE,
        (
            "tests/contract/test_known_defects.py::test_inverse_reaches_any_distance",
            "tests/elementwise/test_monotone.py::test_inverses_are_certified_under_stress",
        ),
    ),
    Row(
        "context",
        "Context in affine and spline, coupling and autoregressive layers",
        "each of the four built with a context of 2; whether the log-density follows it; partly: in some",
        ("tests/contract/test_known_defects.py::test_every_preset_honors_its_context",),
    ),
    Row(
        "both_ways",
        "Autoregressive flows fast both ways (CPU, with the compiled kernels)",
        "5 affine autoregressive layers of 32 columns, 256 rows, one thread: how many times as long the"
        " slower of log_prob and sample takes; yes below 6, partly below 16, half the columns; a pass "
        "for each column takes about 32. FlowJAX jitted; diffeo also without its kernels, on PyTorch "
        "alone",
        (
            "tests/contract/test_steppers.py::test_all_steps_multiply_as_often_as_one_masked_pass",
            "tests/contract/test_steppers.py::test_stepper_is_full_passes",
        ),
    ),
    Row(
        "compile",
        "Spline flows captured whole by the compiler",
        'torch.compile(..., fullgraph=True, backend="eager") of log_prob; jax.jit for FlowJAX; partly: of a '
        "distribution that was made outside",
        ("tests/contract/test_known_defects.py::test_a_whole_flow_is_captured",),
    ),
    Row(
        "continuous",
        "Continuous flows",
        "log_prob of a continuous flow runs" + ELSE,
        ("tests/bijections/test_continuous.py::*", "tests/contract/test_conformance.py::test_presets"),
    ),
    Row(
        "residual",
        "Contractive residual flows (i-ResNet)",
        "a residual layer runs, and is inverted to 1e-3" + ELSE,
        ("tests/bijections/test_contractive.py::test_the_slowest_contraction_comes_back",),
    ),
    Row(
        "images",
        "Image flows with several scales",
        "a flow of 3 x 8 x 8 images that squeezes, couples by a convolutional net and splits, there and "
        "back; partly: some of these parts" + ELSE,
        ("tests/bijections/test_images.py::*", "tests/presets/test_image_presets.py::*"),
    ),
    Row(
        "circular",
        "Circular variables",
        "a spline flow on angles runs" + ELSE,
        ("tests/contract/test_known_defects.py::test_circular_flow_has_no_density_outside_the_circle",),
    ),
    Row(
        "deterministic",
        "log_prob deterministic in evaluation, also of residual flows",
        "log_prob of the library's couplings and, where it has them, residual flows of 4 columns, twice in "
        "evaluation mode: the same; partly: of some of them",
        ("tests/objectives/test_objectives.py::test_evaluation_is_deterministic_and_training_is_not",),
    ),
    Row(
        "dequantization",
        "Variational dequantization",
        "names searched; diffeo's runs",
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
        "a training function runs; partly: one without them" + ELSE,
        ("tests/train/test_fit.py::test_a_run_that_only_memorizes_stops_early",),
    ),
    Row(
        "resume",
        "Training that resumes where it stopped",
        "names searched; diffeo's runs",
        ("tests/train/test_checkpoint.py::test_a_resumed_run_reports_as_one_never_stopped",),
    ),
    Row(
        "files",
        "Model files without pickle that rebuild the model",
        "its own function for files: yes, if it writes no pickle and rebuilds the model; partly, if it "
        "writes no pickle; no, if it is `torch.save` or there is none. What the library stands on "
        "counts for nobody: equinox and safetensors write weights without pickle for all, into a model "
        "built before" + ELSE,
        ("tests/io/test_io.py::*",),
    ),
    Row(
        "targets",
        "Fits densities that can only be evaluated",
        "its own loss or trainer for an unnormalized density runs; partly: of parts, by hand",
        ("tests/inference/test_fit.py::*",),
    ),
    Row(
        "evidence",
        "log Z and effective sample size of such a fit",
        "what the library has for it runs" + ELSE,
        (
            "tests/inference/test_importance.py::test_the_error_of_log_z_is_its_spread",
            "tests/inference/test_annealing.py::test_the_mean_weight_is_the_evidence",
        ),
    ),
    Row(
        "vae",
        "Autoencoders with flow posteriors",
        "read in the source: a ready model or loss; partly: of parts, by hand. diffeo's runs",
        ("tests/autoencoders/test_posteriors.py::*", "tests/autoencoders/test_autoencoder.py::*"),
    ),
    Row(
        "graph",
        "Free graphs of invertible blocks",
        "a graph that splits and joins, there and back" + ELSE,
        (f"{HERE}::test_a_chain_takes_no_graph",),
    ),
    Row(
        "program",
        "Part of a probabilistic programming language",
        "a flow as a site of a guide, a step of SVI: yes, if the language or the library has what makes"
        " it one; partly, if what it has for another library fits; no, if the flow is no "
        "`torch.distributions` one",
        (
            "tests/test_flow.py::test_a_flow_as_a_distribution",
            "tests/test_flow.py::test_a_distribution_at_a_fixed_context",
        ),
    ),
    Row(
        "stochastic",
        "Stochastic layers (Metropolis-Hastings in the flow)",
        "a stochastic layer runs; where there is none, names searched among the layers",
        (f"{HERE}::test_no_layer_is_stochastic",),
    ),
    Row(
        "block",
        "Block neural autoregressive flows",
        "a flow of them runs" + ELSE,
        (f"{HERE}::test_there_are_no_block_neural_flows",),
    ),
    Row(
        "jax",
        "On JAX: jit, vmap and grad of the whole flow, TPUs",
        "FlowJAX: its `log_prob` under jit, vmap and grad; the others: whether their source imports `jax`",
        (f"{HERE}::test_nothing_imports_jax",),
    ),
)
