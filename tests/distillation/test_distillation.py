"""Distillation: what the student learns, keeps and reports, and which pairs are refused."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import diffeo
from diffeo import Flow
from diffeo.bases import LearnedNormal
from diffeo.bijections import ActNorm, Chain, Reverse
from diffeo.distillation import BothKL, LayerByLayer, judge, student_preset
from diffeo.distillation.fit import default_student
from diffeo.errors import ConfigError, ContextError, DataError, TrainingError
from diffeo.inference import ReverseKL
from diffeo.objectives import Batch
from diffeo.presets import IAF, MAF, NSF, CouplingNSF, Jet, RealNVP, Tabular


def shaken(flow: Flow, size: float = 0.3) -> Flow:
    """Untrained flows are their base: this one is not."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(size * torch.randn(p.shape, generator=generator) / max(1, p.shape[-1]) ** 0.5)
    return flow.eval()


def maf(features: int = 3, **options: Any) -> Flow:
    return shaken(MAF(features, **{"layers": 2, "hidden": (8,), **options}).build())


def rows_of(teacher: Flow, count: int) -> Batch:
    generator = torch.Generator().manual_seed(2)
    return Batch(teacher.sample(count, generator=generator), None, None, torch.arange(count))


class Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int | None]] = []

    def on_progress(self, progress: Any) -> None:
        self.seen.append((progress.stage, progress.step, progress.steps))


# -- figures --------------------------------------------------------------------------------------


def test_judgment_of_gaussians():
    def gaussian(loc: float, deviation: float) -> Flow:
        flow = Flow(Reverse(2), LearnedNormal((2,)))
        with torch.no_grad():
            flow.base.loc.fill_(loc)  # type: ignore[union-attr, operator]
            flow.base.log_scale.fill_(math.log(deviation))  # type: ignore[union-attr, operator]
        return flow.eval()

    def divergence(a: float, s: float, b: float, t: float) -> float:
        return 2 * (math.log(t / s) + (s**2 + (a - b) ** 2) / (2 * t**2) - 0.5)

    found = judge(gaussian(0.0, 1.0), gaussian(0.3, 1.2), num_draws=20_000)
    assert abs(found.forward_kl - divergence(0.0, 1.0, 0.3, 1.2)) < 4 * found.forward_kl_error < 0.02
    assert abs(found.reverse_kl - divergence(0.3, 1.2, 0.0, 1.0)) < 4 * found.reverse_kl_error < 0.04
    # 1 / (1 + chi^2) is a Gaussian integral
    spread = 1.2**2 / math.sqrt(2 * 1.2**2 - 1) * math.exp(0.3**2 / (2 * 1.2**2 - 1))
    assert found.ess == pytest.approx(spread**-2, abs=0.02)
    again = judge(gaussian(0.0, 1.0), gaussian(0.3, 1.2), num_draws=20_000)
    assert again == found


def test_judging_is_evaluation_and_every_layer_keeps_its_mode():
    def flow() -> Flow:
        torch.manual_seed(0)
        return shaken(NSF(2, layers=2, hidden=8, blocks=1, dropout=0.5).build())

    wanted = judge(flow(), flow(), num_draws=200)
    teacher, student = flow().train(), flow().train()
    frozen = list(student.modules())[-1].eval()
    assert judge(teacher, student, num_draws=200) == wanted
    assert wanted.forward_kl == 0.0
    assert student.training
    assert teacher.training
    assert not frozen.training


# -- objectives -----------------------------------------------------------------------------------


def test_a_student_that_is_the_teacher_has_no_loss():
    teacher = shaken(MAF(3, layers=2, hidden=(8,)).build(), 0.0)
    student = IAF(3, layers=2, hidden=(8,)).build()
    batch = rows_of(teacher, 50)
    for objective in (LayerByLayer(teacher), BothKL(teacher)):
        assert abs(objective(student, batch).item()) < 1e-5


def test_layer_by_layer_is_the_sum_of_what_each_layer_misses():
    teacher, student = maf(), shaken(IAF(3, layers=2, hidden=(8,)).build(), 0.5).train()
    batch = rows_of(teacher, 50)
    parts: Any = teacher.bijection, student.bijection
    standardize, first, act, reverse, second, last = parts[0]
    own_standardize, own_first, _, own_second = parts[1]
    theirs = Chain([standardize, first, act]), Chain([second, last])
    own = Chain([own_standardize, own_first]), own_second
    with torch.no_grad():
        middle = theirs[0](batch.x)[0]
        wanted = torch.zeros(50)
        for forth, back, x in ((theirs[0], own[0], batch.x), (theirs[1], own[1], reverse(middle)[0])):
            y = torch.cat([forth(x[:25])[0], back(x[25:])[0]])
            wanted += torch.log1p(0.5 * (forth(back.inverse(y)[0])[0] - y).square().sum(-1))
    assert wanted.mean() > 0.01
    assert torch.allclose(LayerByLayer(teacher)(student, batch), wanted.mean(), rtol=1e-4)


def test_layer_by_layer_is_measured_by_reverse_kl():
    teacher, student = maf(), shaken(IAF(3, layers=2, hidden=(8,)).build(), 0.5)
    batch = rows_of(teacher, 4000)
    with torch.no_grad():
        x = student.to_data(teacher.to_latent(batch.x))
        wanted = (student.log_prob(x) - teacher.log_prob(x)).mean()
        assert torch.allclose(LayerByLayer(teacher)(student, batch), wanted, rtol=1e-3)


def test_both_kl_is_their_sum():
    teacher, student = maf(), shaken(RealNVP(3, layers=2, hidden=(8,)).build(), 0.5)
    found = BothKL(teacher)(student, rows_of(teacher, 20_000))
    judged = judge(teacher, student, num_draws=20_000)
    error = math.hypot(judged.forward_kl_error, judged.reverse_kl_error)
    assert abs(found.item() - judged.forward_kl - judged.reverse_kl) < 6 * error
    assert abs(ReverseKL(InDouble(teacher))(student, rows_of(teacher, 20_000)).item() - judged.reverse_kl) < (
        6 * judged.reverse_kl_error
    )


class InDouble:
    """A float32 flow as a target: the door asks in float64."""

    def __init__(self, flow: Flow):
        self.flow = flow

    def log_prob(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x.float())


def test_no_mirror_image_is_refused():
    batch = rows_of(maf(), 5)
    for student in (RealNVP(3).build(), IAF(3, layers=3).build(), MAF(3, layers=2).build()):
        with pytest.raises(ConfigError, match="cannot undo the teacher's"):
            LayerByLayer(maf())(student, batch)
    with pytest.raises(ConfigError, match="cannot undo the teacher's"):
        LayerByLayer(NSF(3, layers=2, hidden=8).build())(IAF(3, layers=2).build(), batch)


# -- distill --------------------------------------------------------------------------------------


def test_a_maf_becomes_an_iaf():
    teacher, recorder = maf(), Recorder()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    student, report = diffeo.distill(teacher, max_steps=900, callbacks=[recorder])
    assert isinstance(student.preset, IAF)
    assert (student.preset.layers, student.preset.hidden) == (2, (16,))
    found = report.judgment
    untrained = judge(teacher, IAF(3, layers=2, hidden=(16,)).build().eval())
    assert found.forward_kl < 0.02 < 0.2 < untrained.forward_kl
    assert found.reverse_kl < 0.02
    assert found.ess > 0.95
    assert (report.training.steps, report.lost) == (900, 0)
    assert [p.step for p in report.training.curves] == sorted(p.step for p in report.training.curves)
    assert recorder.seen[-1] == ("distill", 900, 900)
    assert json.loads(json.dumps(report.to_json()))["judgment"]["num_draws"] == 10_000
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(p.requires_grad for p in teacher.parameters())
    assert not student.training
    # the maps agree, not the densities alone
    z = torch.randn(1000, 3)
    assert (student.to_data(z) - teacher.to_data(z)).square().mean() < 0.02


def test_default_students():
    assert default_student(maf(layers=3)) == IAF(3, layers=3, hidden=(16,))
    assert default_student(maf(context=2)) == IAF(3, context=2, layers=2, hidden=(16,))
    assert default_student(NSF(4).build()) == CouplingNSF(4)
    with pytest.raises(ConfigError, match=r"CouplingNSF is for vectors.*\(1, 2, 2\)"):
        default_student(Jet((1, 2, 2), patch=1, hidden=8, heads=2).build())


def test_a_preset_of_the_teacher_s_columns():
    teacher = Tabular(3, context=2, circular=(1,), layers=1, hidden=8, blocks=1).build()
    assert student_preset(teacher, RealNVP, layers=3) == RealNVP(3, context=2, layers=3)
    assert student_preset(teacher, Tabular, hidden=8) == Tabular(3, context=2, circular=(1,), hidden=8)
    by_hand = Flow(Reverse(2), LearnedNormal((2,)))
    assert student_preset(by_hand, RealNVP) == RealNVP(2)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("student", [RealNVP(2, layers=3, hidden=(16,)), IAF(2, layers=2, hidden=(8,))])
def test_any_flow_learns_from_any(student: Any, both: bool):
    teacher = shaken(NSF(2, layers=2, hidden=8, blocks=1, bins=4, max_scale=1.0).build(), 0.5)
    found, report = diffeo.distill(
        teacher, student, objective=BothKL(teacher) if both else None, max_steps=200
    )
    start = judge(teacher, student.build().eval())
    assert report.judgment.forward_kl < 0.3 * start.forward_kl
    assert report.judgment.reverse_kl < 0.3 * start.reverse_kl
    assert found.preset == student


def test_one_seed_is_one_student():
    teacher = maf()
    runs = [diffeo.distill(teacher, max_steps=5, seed=s) for s in (0, 0, 1)]
    weights = [torch.cat([p.flatten() for p in flow.parameters()]) for flow, _ in runs]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert runs[0][1].judgment == runs[1][1].judgment


def table_teacher() -> Flow:
    rng = np.random.default_rng(0)
    size = rng.lognormal(2, 1, 600)
    table = diffeo.Table.of(
        {
            "size": size,
            "count": rng.poisson(size),
            "same": np.full(600, 7),
            "age": size * rng.lognormal(0, 0.5, 600),
        }
    )
    return diffeo.fit_table(
        table, given=["age"], preset=MAF(2, context=1, layers=2, hidden=(8,)), max_seconds=2
    )[0]


def test_a_table_s_student_replaces_its_teacher(tmp_path: Path):
    teacher = table_teacher()
    age = torch.linspace(3, 20, 300, dtype=torch.float64)[:, None]
    student, report = diffeo.distill(teacher, context=age, max_steps=1500)
    diffeo.save(student, tmp_path / "student.safetensors")
    student = diffeo.load(tmp_path / "student.safetensors")
    x = teacher.sample((), age)
    assert x.shape == student.sample((), age).shape == (300, 3)
    assert (student.sample((), age)[:, 2] == 7).all()
    gap = (student.log_prob(x, age) - teacher.log_prob(x, age)).detach()
    assert gap.abs().mean() < 0.5
    assert report.judgment.forward_kl < 0.3
    table = diffeo.Table.of({"other": np.zeros(300), "age": age[:, 0].numpy()})
    _, again = diffeo.distill(teacher, context=table, max_steps=3)
    assert again == dataclasses.replace(
        diffeo.distill(teacher, context=age, max_steps=3)[1], seconds=again.seconds, training=again.training
    )
    with pytest.raises(DataError, match="age"):
        diffeo.distill(teacher, context=table.drop(["age"]))
    with pytest.raises(ContextError, match="pass context="):
        diffeo.distill(teacher)
    with pytest.raises(ContextError, match="leave context= out"):
        diffeo.distill(maf(), context=age)


def test_what_does_not_fit_is_refused():
    teacher = maf()
    with pytest.raises(ConfigError, match=r"data of shape \(2,\) and the teacher \(3,\)"):
        diffeo.distill(teacher, RealNVP(2))
    with pytest.raises(ConfigError, match=r"contexts of shape \(1,\) and the teacher none"):
        diffeo.distill(teacher, RealNVP(3, context=1))
    with pytest.raises(ConfigError, match="different encodings"):
        diffeo.distill(table_teacher(), RealNVP(2).build(), context=[[1.0]])
    with pytest.raises(ConfigError, match="batch_size"):
        diffeo.distill(teacher, batch_size=0)
    with pytest.raises(ConfigError, match="teacher's domain"):
        diffeo.distill(Tabular(3, circular=(1,), layers=1, hidden=8, blocks=1).build(), RealNVP(3))


def test_a_teacher_whose_draws_explode_is_refused():
    teacher = maf()
    with torch.no_grad():
        for part in teacher.modules():
            if isinstance(part, ActNorm):
                part.log_scale.fill_(80.0)
    with pytest.raises(TrainingError, match="draws of the teacher"):
        diffeo.distill(teacher, max_steps=1)


def test_lost_draws_of_a_student_are_counted(monkeypatch: pytest.MonkeyPatch):
    teacher = diffeo.presets.MAF(2, layers=1, hidden=(4,)).build().eval()
    student = diffeo.presets.MAF(2, layers=1, hidden=(4,)).build().eval()

    def half(
        shape: int, context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        x = Flow.sample(student, shape, context, generator=generator)
        x[::2] = math.nan
        return x

    monkeypatch.setattr(student, "sample", half)
    found = judge(teacher, student, num_draws=200)
    assert (found.lost, found.num_draws) == (100, 200)
    assert found.ess == pytest.approx(0.5)
