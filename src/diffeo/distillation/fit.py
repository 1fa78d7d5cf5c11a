"""Distillation: one flow fitted to another."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor
from typing_extensions import Unpack

from diffeo._arrays import unmasked
from diffeo.distillation.objectives import LayerByLayer, layer_pairs
from diffeo.errors import ConfigError, ContextError, Cure, TrainingError
from diffeo.flow import Flow, device_of, evaluating, in_parts
from diffeo.functional.domains import describe, same_interval
from diffeo.functional.seeding import generator, seeded
from diffeo.objectives import Likelihood, Objective
from diffeo.presets import IAF, MAF, CouplingNSF, Preset, VectorPreset
from diffeo.tables import Table
from diffeo.tables.scores import HELD_OUT_SCORES, SCORE_QUANTILES
from diffeo.tables.tensors import table_encoding, to_context
from diffeo.train.loop import fit_rows
from diffeo.train.optimizer import OptimizerSettings
from diffeo.train.options import Options, TrainingOptions
from diffeo.train.progress import shown
from diffeo.train.report import FitReport, relabelled
from diffeo.train.rows import TensorRows, rows_for

POOL = 100_000
"""Draws of the teacher to train on, and a twentieth of it to be measured on as the run goes."""
JUDGED = 10_000
"""Fresh draws of each flow that the report's figures are means over."""
FEWEST = 500
"""Draws of either kind, however long they take."""
DRAWING, JUDGING = 0.25, 0.08
"""Parts of the time for the teacher's draws, and for the judging."""
BATCH = 256
"""Rows a step."""
AT_A_TIME = 4096
"""Rows drawn or scored at a time."""
RATE = 4e-3
"""Learning rate where layers learn from layers."""
WIDER = 2
"""The nets of such a student have so many times the width of their teacher's: they hold an inverse."""
LOST = 0.01
"""A larger share of draws that are not finite makes a teacher unusable."""


P = TypeVar("P", bound=VectorPreset)


@dataclass(frozen=True)
class Judgment:
    """How far a student is from its teacher, by Monte Carlo, in nats.

    Args:
        forward_kl: ``KL(teacher || student)``, over the teacher's draws; it grows with what a student misses.
        forward_kl_error: its standard error. A few rows can carry most of it: then both are too small.
        reverse_kl: ``KL(student || teacher)``, over draws of the student.
        reverse_kl_error: its standard error.
        ess: effective fraction, in [0, 1], of the student's draws as importance draws of the teacher.
        num_draws: of each.
        lost: draws of the student that were not finite, which the means leave out; they count as
            worthless in ``ess``.
    """

    forward_kl: float
    forward_kl_error: float
    reverse_kl: float
    reverse_kl_error: float
    ess: float
    num_draws: int
    lost: int = 0


@dataclass(frozen=True)
class DistillReport:
    """How a distillation went.

    Args:
        judgment: student against teacher, on fresh draws.
        training: how the training went; its curves are negatives of the objective: ``train`` of its loss,
            ``valid`` of the divergence that it measures.
        seconds: of everything, the teacher's draws and the judging included.
        lost: the teacher's draws that were not finite and were left out.
    """

    judgment: Judgment
    training: FitReport
    seconds: float
    lost: int

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return asdict(self)

    def notes(self) -> dict[str, Any]:
        """What the student's file says of its run."""
        found = self.judgment
        figures = {"forward KL": found.forward_kl, "reverse KL": found.reverse_kl, "ESS": found.ess}
        return {
            **self.training.notes(),
            "seconds": round(self.seconds, 1),
            "distilled": {name: round(v, 4) for name, v in figures.items() if math.isfinite(v)},
        }


def distill(
    teacher: Flow,
    student: Flow | Preset | None = None,
    *,
    context: ArrayLike | Table | None = None,
    objective: Objective | None = None,
    **training: Unpack[TrainingOptions],
) -> tuple[Flow, DistillReport]:
    """Fit a student to a teacher; no data are needed, and the student takes its place in every use.

    Why: a MAF samples column by column and an IAF in one pass; a deep, a continuous or a large flow is slow
    at everything, and another one may do. The student gets the teacher's encoding: the same table, the same
    units.

    A MAF's student is an IAF of as many layers, its nets wider, and learns the map itself: ``LayerByLayer``.
    Every other student is fitted to draws of the teacher by maximum likelihood, the default one then being a
    ``CouplingNSF``. On one teacher (NSF, 8 columns) that was ahead of ``BothKL`` after equal time.

    Args:
        teacher: any flow that samples and scores; it is left as it is.
        student: a preset to build, or a flow to train in place; of the teacher's shape and context, and, if a
            flow, with an equal encoding.
        context: rows to condition on, where the teacher takes a context: it is learned at those. For a flow
            of a table a ``Table`` with the columns that it is conditioned on will do.
        objective: what to minimize over draws of the teacher instead, such as
            ``BothKL(teacher.without_encoding())``.
        training: as ``TrainingOptions`` says; from a slow teacher fewer rows are drawn and judged, to keep
            within ``max_seconds``. Without any limit a run has 10,000 steps; by default a step has 256 rows.
            A run resumed from a ``checkpoint`` draws its rows anew, the same ones.

    Raises:
        ConfigError: for a student that does not fit the teacher.
        ContextError: for a context that is missing or not wanted.
        DataError: for a table without a column that the teacher is conditioned on.
        TrainingError: for a teacher whose draws are not finite.

    References: van den Oord et al. 2018, "Parallel WaveNet: fast high-fidelity speech synthesis"; Prince
    2023, figure 16.14.

    Example:
        >>> import torch, diffeo
        >>> teacher = diffeo.presets.MAF(features=3, layers=2, hidden=(8,)).build()
        >>> student, report = diffeo.distill(teacher, max_steps=20)
        >>> type(student.preset).__name__, report.judgment.forward_kl < 0.01
        ('IAF', True)
    """
    options = Options(**training)
    if (context is None) != (teacher.context_shape is None):
        raise ContextError(
            "this teacher takes a context; pass context=, rows such as those it was fitted to."
            if context is None
            else "this teacher takes no context; leave context= out.",
            cure=Cure("context", "TABLE") if context is None else None,
        )
    if isinstance(context, Table):
        context = to_context(table_encoding(teacher), context)
    with options.held():
        return _distilled(teacher, student, context, objective, options)


def _distilled(
    teacher: Flow,
    student: Flow | Preset | None,
    context: ArrayLike | None,
    objective: Objective | None,
    options: Options,
) -> tuple[Flow, DistillReport]:
    with seeded(options.seed):
        student = _student(teacher, student)
        source = copy.deepcopy(teacher).eval().requires_grad_(False).without_encoding()
        core = student.without_encoding()
        sizes = _noted_sizes(source, context, options)
        draws = generator(options.seed, device_of(source))
        train, lost = _draw(source, "teacher", context, sizes.pool, draws)
        if lost > LOST * sizes.pool:
            raise TrainingError(
                f"{lost} of {sizes.pool} draws of the teacher are not finite or have no density: its inverse "
                f"is not stable; fit it with more weight decay, or fewer steps."
            )
        valid, _ = _draw(source, "teacher", context, max(1, sizes.pool // 20), draws)
    layers = objective is None and layer_pairs(source, core) is not None
    default = LayerByLayer(source) if layers else Likelihood()
    settings = OptimizerSettings(RATE if layers else None, weight_decay=0.0, patience=1.0)
    with shown(options.progress, options.callbacks) as callbacks:
        how = replace(
            options,
            batch_size=options.batch_size or BATCH,
            optimizer=options.optimizer or settings,
            callbacks=relabelled(callbacks, "distill"),
            progress=False,
        )
        own = default if objective is None else objective
        report = fit_rows(core, train, valid, own, how, sizes.reserve)
    student.eval()
    judgment = judge(source, core, context, num_draws=sizes.judged, seed=options.seed + 1)
    found = DistillReport(judgment, report, options.spent(), lost)
    known = {key: teacher.notes[key] for key in (HELD_OUT_SCORES, SCORE_QUANTILES) if key in teacher.notes}
    student.notes = {**found.notes(), **known}  # it takes its teacher's place for the same rows
    return student, found


@dataclass(frozen=True)
class _Sizes:
    """Draws of the teacher to learn from, draws of each to judge by, and the seconds left for the latter."""

    pool: int
    judged: int
    reserve: float = 0.0


def _noted_sizes(source: Flow, context: ArrayLike | None, options: Options) -> _Sizes:
    """The sizes that a checkpoint keeps; else those that the time allows, which it then keeps."""
    keeper = options.keeper
    noted = None if keeper is None else keeper.notes()
    if keeper is not None and noted is not None:
        if set(noted[0]) != {"distillation"}:
            raise keeper.of_another_run("not a distillation")
        return _Sizes(**noted[0]["distillation"])
    sizes = _sizes(source, context, options)
    if keeper is not None:
        keeper.note({"distillation": asdict(sizes)})
    return sizes


def _sizes(source: Flow, context: ArrayLike | None, options: Options) -> _Sizes:
    limit = options.max_seconds
    if limit is None:
        return _Sizes(POOL, JUDGED)
    count, taken = 16, 0.0
    while taken < 0.01 * limit and count <= AT_A_TIME:
        tick, count = options.clock(), 4 * count
        _draw(source, "teacher", context, count, generator(0, device_of(source)))
        taken = options.clock() - tick
    each = max(taken, 1e-9) / count  # of the student's draws and of either's scores too, about
    pool = min(POOL, max(FEWEST, int(DRAWING * limit / each)))
    judged = min(JUDGED, max(FEWEST, int(JUDGING * limit / (4 * each))))
    return _Sizes(pool, judged, min(4.4 * each * judged + 0.2, 2 * JUDGING * limit))


def judge(
    teacher: Flow, student: Flow, context: ArrayLike | None = None, *, num_draws: int = JUDGED, seed: int = 0
) -> Judgment:
    """Both KL divergences between two flows of the same vectors, on fresh draws of each, in evaluation mode.

    Args:
        teacher: a flow without an encoding.
        student: likewise.
        context: rows to take contexts from, where the flows take one.
        num_draws: of each flow, at least 2.
        seed: of the draws.

    Example:
        >>> import diffeo
        >>> flow = diffeo.presets.MAF(features=2).build()
        >>> judge(flow, flow, num_draws=100).forward_kl
        0.0
    """
    draws = generator(seed, device_of(teacher))
    theirs, _ = _draw(teacher, "teacher", context, num_draws, draws)
    own, lost = _draw(student, "student", context, num_draws, draws)

    def log_ratio(drawn: TensorRows) -> Tensor:
        def part(x: Tensor, given: Tensor | None) -> Tensor:
            return teacher.log_prob(x, given) - student.log_prob(x, given)

        return in_parts(teacher, part, drawn.x, drawn.context, batch_size=AT_A_TIME).double()

    with evaluating(student):
        forward, weights = log_ratio(theirs), log_ratio(own)
    normalized = (weights - weights.logsumexp(0)).exp()
    ess = 1 / (num_draws * float(normalized.square().sum()))
    return Judgment(*_mean(forward), *_mean(-weights), ess, num_draws, lost)


def _mean(values: Tensor) -> tuple[float, float]:
    """With its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def student_preset(teacher: Flow, kind: type[P], **settings: Any) -> P:
    """A preset of this kind for a student: the teacher's columns, its context, and which columns are angles.

    Args:
        teacher: a flow of vectors.
        kind: a preset of vectors, such as ``CouplingNSF``.
        settings: further fields of it.

    Raises:
        ConfigError: for a teacher of other data than vectors, or one built by hand that takes a context.

    Example:
        >>> import diffeo
        >>> teacher = diffeo.presets.MAF(features=3, context=2).build()
        >>> student_preset(teacher, diffeo.presets.RealNVP, layers=4).conditioned_on
        Vector(size=2)
    """
    shape, own = teacher.without_encoding().event_shape, teacher.preset
    if len(shape) != 1:
        raise ConfigError(
            f"{kind.__name__} is for vectors, but the teacher's data have shape "
            f"{tuple(teacher.event_shape)}; pass a preset for such data as student=."
        )
    if own is None and teacher.context_shape is not None:
        raise ConfigError(
            "this teacher was built by hand and takes a context; pass student=, a preset with that context."
        )
    given: dict[str, Any] = {"features": shape[0]}
    if isinstance(own, VectorPreset):
        given["context"] = own.conditioned_on
        if own.circular and any(field.name == "circular" for field in fields(kind)):
            given["circular"] = own.circular
    return kind(**(given | settings))


def default_student(teacher: Flow) -> Preset:
    """The preset of a teacher's student; see ``distill``."""
    if isinstance(own := teacher.preset, MAF):
        hidden = tuple(WIDER * width for width in own.hidden)
        return student_preset(teacher, IAF, layers=own.layers, hidden=hidden)
    return student_preset(teacher, CouplingNSF)


def _student(teacher: Flow, student: Flow | Preset | None) -> Flow:
    """The flow to train, behind a copy of the teacher's encodings."""
    if isinstance(student, Flow):
        found = student
        if _encoding_of(student) != _encoding_of(teacher):
            raise ConfigError("teacher and student have different encodings; pass a preset as the student.")
    else:
        preset = default_student(teacher) if student is None else student
        found = preset.build(copy.deepcopy(teacher.encoding))
        dtype = next((p.dtype for p in teacher.parameters()), torch.float32)
        found = found.to(device_of(teacher), dtype)
    for what, one, other in (
        ("data of shape", found.event_shape, teacher.event_shape),
        ("contexts of shape", found.context_shape, teacher.context_shape),
    ):
        if one != other:
            raise ConfigError(
                f"the student takes {what} {_shown(one)} and the teacher {_shown(other)}; give it the same."
            )
    here, there = found.bijection.domain, teacher.bijection.domain
    if here is not None and there is not None and not same_interval(here, there):
        raise ConfigError(
            f"the student lives on {describe(here)} and the teacher on {describe(there)}; give the student "
            f"the teacher's domain, in Tabular by circular=."
        )
    own, theirs = found.context_encoding, teacher.context_encoding
    if type(own) is not type(theirs):
        raise ConfigError("teacher and student encode their contexts differently; give both the same kind.")
    if own is not None and theirs is not None:
        own.load_state_dict(theirs.state_dict())
    return found


def _shown(shape: Sequence[int] | None) -> str:
    return "none" if shape is None else str(tuple(shape))


def _encoding_of(flow: Flow) -> Any:
    return None if flow.encoding is None else (type(flow.encoding), flow.encoding.to_json())


def _draw(
    flow: Flow, who: str, context: ArrayLike | None, num_draws: int, draws: Generator
) -> tuple[TensorRows, int]:
    """Finite draws, at contexts picked from those given, and how many others there were."""
    given = None
    if context is not None:
        known = context if isinstance(context, Tensor) else torch.as_tensor(unmasked(context))
        given = known[torch.randint(len(known), (num_draws,), generator=draws)]

    def draw(index: Tensor, some: Tensor | None) -> tuple[Tensor, Tensor]:
        x = flow.sample(() if some is not None else len(index), some, generator=draws)
        return x, flow.log_prob(x, some)

    x, score = in_parts(flow, draw, torch.arange(num_draws), given, batch_size=AT_A_TIME)
    good = score.isfinite() & x.flatten(1).isfinite().all(1)
    lost = num_draws - int(good.sum())
    if lost == num_draws:
        raise TrainingError(
            f"not one of {num_draws} draws of the {who} is finite and has a density; fit it anew."
        )
    return rows_for(flow, x[good], None if given is None else given[good], None), lost
