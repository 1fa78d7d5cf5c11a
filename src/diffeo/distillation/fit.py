"""Distillation: one flow fitted to another."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor

from diffeo.distillation.objectives import LayerByLayer, mirrored
from diffeo.errors import ConfigError, ContextError, TrainingError
from diffeo.flow import Flow
from diffeo.functional.domains import describe, same_interval
from diffeo.objectives import Likelihood, Objective
from diffeo.presets import IAF, MAF, CouplingNSF, Preset, VectorPreset
from diffeo.train.data import Rows, rows_for
from diffeo.train.loop import Recipe, fit
from diffeo.train.report import Callback, Point, Progress

POOL = 100_000
"""Draws of the teacher to train on, and a twentieth of it to be measured on as the run goes."""
JUDGED = 10_000
"""Fresh draws of each flow that the report's figures are means over."""
RATE = 4e-3
"""Learning rate where layers learn from layers."""
WIDER = 2
"""The nets of such a student have so many times the width of their teacher's: they hold an inverse."""
LOST = 0.01
"""A larger share of draws that are not finite makes a teacher unusable."""


@dataclass(frozen=True)
class Judgment:
    """How far a student is from its teacher, by Monte Carlo, in nats.

    Args:
        forward_kl: ``KL(teacher || student)``, over the teacher's draws; it grows with what a student misses.
        forward_kl_error: its standard error. A few rows can carry most of it: then both are too small.
        reverse_kl: ``KL(student || teacher)``, over draws of the student.
        reverse_kl_error: its standard error.
        ess: effective fraction, in [0, 1], of the student's draws as importance draws of the teacher.
        rows: draws of each.
        lost: draws of the student that were not finite, and so are in none of the means; they count as
            worthless in ``ess``.
    """

    forward_kl: float
    forward_kl_error: float
    reverse_kl: float
    reverse_kl_error: float
    ess: float
    rows: int
    lost: int = 0


@dataclass(frozen=True)
class DistillReport:
    """How a distillation went.

    Args:
        judgment: student against teacher, on fresh draws.
        seconds: wall-clock time, the teacher's draws and the judging included.
        steps: optimizer steps taken.
        stopped: why the run ended.
        curves: by step and seconds, the negatives of the objective: ``train`` of its loss, ``valid`` of the
            divergence that it measures.
        seed: the seed.
        lost: the teacher's draws that were not finite and were left out.
    """

    judgment: Judgment
    seconds: float
    steps: int
    stopped: str
    curves: list[Point]
    seed: int
    lost: int

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return asdict(self)


def distill(
    teacher: Flow,
    student: Flow | Preset | None = None,
    *,
    context: ArrayLike | None = None,
    objective: Objective | None = None,
    max_seconds: float | None = None,
    max_steps: int | None = None,
    batch_size: int = 256,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    recipe: Recipe | None = None,
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
        context: rows to condition on, where the teacher takes a context: it is learned at those.
        objective: what to minimize over draws of the teacher instead, such as
            ``BothKL(teacher.without_encoding())``.
        max_seconds: time to train; drawing and judging come on top.
        max_steps: optimizer steps; without any limit, 10,000.
        batch_size: rows a step.
        seed: of weights, draws and batches.
        callbacks: objects with ``on_progress(progress)``.
        recipe: optimizer settings.

    Raises:
        ConfigError: for a student that does not fit the teacher.
        ContextError: for a context that is missing or not wanted.
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
    started = time.monotonic()
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, not {batch_size}.")
    if (context is None) != (teacher.context_shape is None):
        raise ContextError(
            "this teacher takes a context; pass context=, rows such as those it was fitted to."
            if context is None
            else "this teacher takes no context; leave context= out."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = _student(teacher, student)
        source = copy.deepcopy(teacher).eval().requires_grad_(False).without_encoding()
        core = student.without_encoding()
        generator = Generator(_device(source)).manual_seed(seed)
        train, lost = _draw(source, "teacher", context, POOL, generator)
        if lost > LOST * POOL:
            raise TrainingError(
                f"{lost} of {POOL} draws of the teacher are not finite or have no density: its inverse is "
                f"not stable; fit it with more weight decay, or fewer steps."
            )
        valid, _ = _draw(source, "teacher", context, POOL // 20, generator)
    layers = objective is None and mirrored(source, core) is not None
    default = LayerByLayer(source) if layers else Likelihood()
    own = Recipe(weight_decay=0.0, patience=1.0)
    part = fit(
        core,
        train.x,
        train.context,
        objective=default if objective is None else objective,
        validation=valid,
        max_seconds=max_seconds,
        max_steps=max_steps,
        batch_size=batch_size,
        seed=seed,
        callbacks=[_Stage(c) for c in callbacks],
        recipe=recipe or (replace(own, learning_rate=RATE) if layers else own),
    )
    student.eval()
    judgment = judge(source, core, context, seed=seed + 1)
    seconds = time.monotonic() - started
    return student, DistillReport(judgment, seconds, part.steps, part.stopped, part.curves, seed, lost)


@torch.no_grad()
def judge(
    teacher: Flow, student: Flow, context: ArrayLike | None = None, *, rows: int = JUDGED, seed: int = 0
) -> Judgment:
    """Both KL divergences between two flows of the same vectors, on fresh draws of each.

    Args:
        teacher: a flow without an encoding, in evaluation mode.
        student: likewise.
        context: rows to take contexts from, where the flows take one.
        rows: draws of each flow.
        seed: of the draws.

    Example:
        >>> import diffeo
        >>> flow = diffeo.presets.MAF(features=2).build().eval()
        >>> judge(flow, flow, rows=100).forward_kl
        0.0
    """
    generator = Generator(_device(teacher)).manual_seed(seed)
    theirs, _ = _draw(teacher, "teacher", context, rows, generator)
    own, lost = _draw(student, "student", context, rows, generator)

    def log_ratio(x: Rows) -> Tensor:
        parts = [teacher.log_prob(b.x, b.context) - student.log_prob(b.x, b.context) for b in x.batches(4096)]
        return torch.cat(parts).double()

    forward, weights = log_ratio(theirs), log_ratio(own)
    normalized = (weights - weights.logsumexp(0)).exp()
    ess = 1 / (rows * float(normalized.square().sum()))
    return Judgment(*_mean(forward), *_mean(-weights), ess, rows, lost)


def _mean(values: Tensor) -> tuple[float, float]:
    """With its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


class _Stage:
    """Passes progress on under this run's name."""

    def __init__(self, callback: Callback):
        self.callback = callback

    def on_progress(self, progress: Progress) -> None:
        self.callback.on_progress(replace(progress, stage="distill"))


def _device(flow: Flow) -> torch.device:
    return next((p.device for p in flow.parameters()), torch.device("cpu"))


def default_student(teacher: Flow) -> Preset:
    """The preset of a teacher's student; see ``distill``."""
    preset = teacher.preset
    shape = teacher.without_encoding().event_shape
    context = preset.conditioned_on if isinstance(preset, VectorPreset) else None
    if len(shape) != 1:
        raise ConfigError(
            f"there is no default student for data of shape {tuple(teacher.event_shape)}; pass a preset as "
            f"student=."
        )
    if preset is None and teacher.context_shape is not None:
        raise ConfigError(
            "this teacher was built by hand and takes a context; pass student=, a preset with that context."
        )
    if isinstance(preset, MAF):
        hidden = tuple(WIDER * width for width in preset.hidden)
        return IAF(shape[0], context=context, layers=preset.layers, hidden=hidden)
    return CouplingNSF(shape[0], context=context)


def _student(teacher: Flow, student: Flow | Preset | None) -> Flow:
    """The flow to train, behind a copy of the teacher's doors."""
    if isinstance(student, Flow):
        found = student
        if _door(student) != _door(teacher):
            raise ConfigError("teacher and student have different encodings; pass a preset as the student.")
    else:
        preset = default_student(teacher) if student is None else student
        found = preset.build(copy.deepcopy(teacher.encoding))
        dtype = next((p.dtype for p in teacher.parameters()), torch.float32)
        found = found.to(_device(teacher), dtype)
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


def _door(flow: Flow) -> Any:
    return None if flow.encoding is None else (type(flow.encoding), flow.encoding.to_json())


@torch.no_grad()
def _draw(
    flow: Flow, who: str, context: ArrayLike | None, rows: int, generator: Generator
) -> tuple[Rows, int]:
    """Finite draws, at contexts picked from those given, and how many others there were."""
    given = None
    if context is not None:
        known = torch.as_tensor(context)
        given = known[torch.randint(len(known), (rows,), generator=generator)]
    size = 4096
    parts = []
    for start in range(0, rows, size):
        count = min(size, rows - start)
        some = None if given is None else given[start : start + count]
        parts.append(flow.sample(() if some is not None else count, some, generator=generator))
    x = torch.cat(parts)
    score = torch.cat([
        flow.log_prob(v, None if given is None else given[i * size : i * size + len(v)])
        for i, v in enumerate(parts)
    ])  # fmt: skip
    good = score.isfinite() & x.flatten(1).isfinite().all(1)
    lost = rows - int(good.sum())
    if lost == rows:
        raise TrainingError(f"not one of {rows} draws of the {who} is finite and has a density; fit it anew.")
    return rows_for(flow, x[good], None if given is None else given[good], None), lost
