"""``diffeo target``: fit to a density that can only be evaluated, and draw from it."""

from __future__ import annotations

import importlib
import inspect
import operator
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, runtime_checkable

import typer

from diffeo._files import check_output
from diffeo.cli import options
from diffeo.cli.printing import say
from diffeo.errors import ConfigError

if TYPE_CHECKING:
    from diffeo.inference import TargetReport
    from diffeo.targets import Target

target = typer.Typer(
    name="target",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Learn a density that can only be evaluated: a function, or a Stan model. Either is code, and "
    "it is run: use only what you trust. It has no columns to condition on, so there is no --given.",
    epilog="Example: `diffeo target fit my_model:log_prob --dim 3 -o model.safetensors`",
)

NETCDF = ".nc"
SHOWN = 30
"""Parameters whose moments are printed."""

Density = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="MODULE:FUNCTION, a log-density of rows (or an object with log_prob), found from this folder; "
        "or MODEL.stan. Either is run.",
    ),
]
Data = Annotated[Path | None, typer.Option(metavar="D.json", help="Data of the Stan model.")]
FromNumPy = Annotated[
    bool, typer.Option("--numpy", help="FUNCTION takes and gives NumPy arrays; no gradients then.")
]


@target.command(
    epilog="Example: `diffeo target fit my_model:log_prob --dim 3 -o model.safetensors --draws-file draws.nc`"
)
def fit(
    density: Density,
    output: options.NewModel,
    data: Data = None,
    dim: Annotated[
        int | None, typer.Option(min=1, help="D, columns that FUNCTION takes; Stan models know theirs.")
    ] = None,
    numpy: FromNumPy = False,
    start: Annotated[
        float, typer.Option(metavar="SD", help="Look for mass in a normal of this width around 0.")
    ] = 2.0,
    draws_file: Annotated[
        Path | None, typer.Option(metavar="F.nc", help="Write draws too, resampled and weighted, as NetCDF.")
    ] = None,
    preset: Annotated[str, typer.Option(metavar="NAME", help="Kind of flow.")] = "Tabular",
    set_: options.Fields = None,
    max_seconds: Annotated[
        float | None, typer.Option(metavar="S", min=1, help="Seconds for all; default: 3,000 steps.")
    ] = None,
    max_steps: options.MaxSteps = None,
    seed: options.Seed = 0,
    checkpoint: options.RunFile = None,
) -> None:
    """Fit a flow to an unnormalized log-density and write the model.

    Prints the log evidence with its standard error, how effective the flow's draws are, each parameter's mean
    and standard deviation, and whether to trust them.
    """
    outputs = {"--output": output, "--draws-file": draws_file, "--checkpoint": checkpoint}
    options.check_paths(outputs, {"TARGET": _file_of(density), "--data": data})
    options.check_preset(preset)
    if draws_file is not None:
        check_output(draws_file, (NETCDF,))
    named = _named(density, data, numpy)

    import torch

    import diffeo
    from diffeo.inference import arviz

    if draws_file is not None:
        arviz.library()  # now, not after the fit
    kind = options.preset_class(preset)
    settings = options.settings(kind, set_ or ())
    with options.kept(checkpoint) as run:
        found, features = _target(named, density, data, numpy, dim)
        say(f"{density}: {features} column{'s' * (features > 1)} to fit")
        torch.manual_seed(seed)
        flow = kind(features=features, **settings).build()
        result = diffeo.fit_target(
            flow,
            found,
            start=start,
            max_seconds=max_seconds,
            max_steps=max_steps,
            seed=seed,
            checkpoint=run,
            began=options.began(),
        )
        flow.notes = {"target": density, **flow.notes}
        options.save_model(flow, output, run)
        _say(result)
        if draws_file is not None:
            result.save_netcdf(draws_file)
    say(f"wrote {output}" + (f" and {draws_file}" if draws_file is not None else ""))


@target.command(
    epilog="Example: `diffeo target sample model.safetensors model.stan --data data.json -n 99 -o draws.csv`"
)
def sample(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model that `diffeo target fit` wrote.")],
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="OUT", help="Table or NetCDF (.nc); `-`: CSV on stdout."),
    ],
    density: Annotated[
        str | None,
        typer.Argument(metavar="[TARGET]", help="As in `fit`: draws are then weighted, named, its own."),
    ] = None,
    data: Data = None,
    numpy: FromNumPy = False,
    n: Annotated[int, typer.Option("-n", "--rows", metavar="N", min=1, help="Rows to draw.")] = 1000,
    seed: options.DrawSeed = None,
) -> None:
    """Draw from a fitted model.

    With TARGET, four times as many draws (1,000 at least) are weighted by it and resampled, which corrects
    what the flow has not learned, and constrained parameters come on their own scale. Without it they are
    the flow's own.
    """
    from diffeo.tables.files import WRITERS

    inputs = {"MODEL": model, "TARGET": _file_of(density), "--data": data}
    options.check_paths({"--output": output}, inputs, (*WRITERS, NETCDF))
    options.check_model(model)
    named = None if density is None else _named(density, data, numpy)

    from diffeo.errors import DataError
    from diffeo.functional.seeding import generator
    from diffeo.inference import importance, save_netcdf, to_datatree
    from diffeo.inference.parameters import columns
    from diffeo.tables.table import Table
    from diffeo.targets import FromTorch

    flow = options.load_model(model)
    if flow.encoding is not None or len(flow.event_shape) != 1:
        raise DataError(f"{model} was fitted to data; use diffeo sample.")
    draws = generator(seed)
    if density is None:
        x, known = flow.sample(n, generator=draws), FromTorch(flow.log_prob)
    else:
        known, _ = _target(named, density, data, numpy, flow.event_shape[0])
        weighted = importance(flow, known, max(4 * n, 1000), generator=draws)
        for doubt in weighted.doubts:
            say(f"diffeo: warning: {doubt}", err=True)
        x = weighted.resample(n, generator=draws)
    if output.endswith(NETCDF):
        save_netcdf(to_datatree(known, x), output)
    else:
        Table(columns(known, x)).write(output)


def _file_of(spec: str | None) -> Path | None:
    """The file here of a target that the command line names, where there is one."""
    spec = spec or ""
    path = Path(spec if spec.lower().endswith(".stan") else spec.partition(":")[0].replace(".", "/") + ".py")
    return path if path.exists() else None


@runtime_checkable
class _Featured(Protocol):
    """A target that says how many columns it takes."""

    features: int


def _features(target: object) -> int | None:
    return target.features if isinstance(target, _Featured) else None


def _named(spec: str, data: Path | None, numpy: bool) -> Any:
    """What the command line names, found without torch: the path of a Stan model, or an object."""
    if spec.lower().endswith(".stan"):
        if numpy:
            raise ConfigError("--numpy is for MODULE:FUNCTION, not for a Stan model.")
        return Path(spec)
    if data is not None:
        raise ConfigError("--data is for a Stan model; a FUNCTION brings its own data.")
    found = _imported(spec)
    return _made(found, spec) if isinstance(found, type) else found


def _target(found: Any, spec: str, data: Path | None, numpy: bool, dim: int | None) -> tuple[Target, int]:
    """The target that was named, and its number of columns."""
    from diffeo import targets

    if isinstance(found, Path):
        if found.is_file():
            say(f"compiling {spec}: half a minute, the first time", err=True)
        found = targets.Stan(found, data)
    elif isinstance(found, targets.Target):
        if numpy:
            raise ConfigError(f"--numpy is for a function; {spec} has log_prob, and is taken as it is.")
    elif not callable(found):
        raise ConfigError(f"{spec} is neither a function nor an object with log_prob.")
    else:
        function: Any = found
        found = targets.FromNumPy(function) if numpy else targets.FromTorch(function)
    own = _features(found)
    features = dim if own is None else own
    if features is None:
        raise ConfigError(f"{spec} does not say how many columns it takes; give --dim.")
    if dim is not None and dim != features:
        raise ConfigError(f"{spec} takes {features} columns, not {dim}.")
    return found, features


def _made(kind: type, spec: str) -> Any:
    """An object of a class that needs no arguments."""
    try:
        inspect.signature(kind).bind()
    except TypeError as error:
        raise ConfigError(
            f"{spec} is a class ({error}); make an object of it in the module, and name that."
        ) from None
    return kind()


def _imported(spec: str) -> Any:
    """The object that MODULE:NAME names; modules in the current folder are found."""
    module, colon, name = spec.partition(":")
    if not (module and colon and name) or module.startswith(".") or module.endswith(".py"):
        raise ConfigError(
            f"{spec!r} is not a target; write MODULE:FUNCTION (my_model:log_prob) or MODEL.stan."
        )
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # and it stays, for what the module imports when it is called
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"there is no module {module!r} here or installed; see that {module}.py is here."
        ) from None
    try:
        return operator.attrgetter(name)(found)
    except AttributeError:
        raise ConfigError(
            f"module {module!r} ({getattr(found, '__file__', None)}) has no {name!r}."
        ) from None


def _say(result: TargetReport) -> None:
    """What the fit found, and whether to trust it."""
    from diffeo.cli.report import grid

    taken = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items())
    say(f"trained {result.training.steps:,} steps; {taken}")
    say(f"target evaluated {result.evaluations:,} times, {result.gradients:,} of them with a gradient")
    moments = [(name, f"{mean:.4g}", f"{sd:.4g}") for name, (mean, sd) in result.moments().items()]
    grid([("parameter", "mean", "sd"), *moments[:SHOWN]], right=(1, 2))
    if len(moments) > SHOWN:
        say(f"and {len(moments) - SHOWN:,} more")
    say(f"log Z             {result.log_z:.4f} +- {result.log_z_error:.4f}")
    say(f"effective draws   {result.ess:.1%} of {len(result.weighted):,}")
    say(f"Pareto k          {result.pareto_k:.2f}")
    if result.failed:
        say(f"failed at         {result.failed:,} points, first so: {result.failure}")
    if result.trusted:
        say("Nothing speaks against this fit.")
    for doubt in result.doubts:
        say(f"DO NOT TRUST THIS FIT: {doubt}")
