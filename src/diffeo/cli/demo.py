"""``diffeo demo``: a toy density with its exact answer, then a real job on a real table."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from torch import Tensor

import diffeo
from diffeo import plots
from diffeo.cli.printing import clean
from diffeo.flow import in_parts
from diffeo.functional.seeding import generator
from diffeo.tables.samples import sample_table
from diffeo.tables.scores import score_table
from diffeo.tables.table import Table
from diffeo.targets.toys import TOYS, Toy

TOY = TOYS["pinwheel"]
ROWS, FRESH = 50_000, 20_000
LIMIT = 4.0
COLORS = {"benign": plots.COLORS["blue"], "malignant": plots.COLORS["orange"]}
FILES = {
    "benign_train.csv": "the rows the model learned from, 30 columns",
    "held_out.csv": "the rows it was tried on; malignant (0 or 1) is for you, the model never sees it",
    "model.safetensors": "the model",
    "scores.csv": "log-likelihood of each held-out row, and its quantile among the training rows",
    "samples.csv": "new benign rows, drawn from the model",
    "demo.png": "the picture: look at this one",
}


@dataclass(frozen=True)
class ToyResult:
    """A toy, the flow fitted to it, and rows of both."""

    toy: Toy
    flow: diffeo.Flow
    data: Tensor
    samples: Tensor
    gap: float


@dataclass(frozen=True)
class CancerResult:
    """Held-out log-likelihoods, which of them are malignant, and how well they tell."""

    log_prob: NDArray[np.float64]
    malignant: NDArray[np.bool_]
    auc: float


def run(folder: Path, console: Console, seconds: float = 60.0, seed: int = 0) -> None:
    """Fit a toy density and the breast-cancer table, and leave files and one picture in ``folder``.

    Args:
        folder: made if it is not there; files of an earlier demo are replaced.
        console: where the report is printed.
        seconds: for both fits together; the rest of the demo takes some ten more.
        seed: of rows, splits and fits.
    """
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    toy = _fit_toy(console, 0.5 * seconds, seed)
    cancer = _fit_cancer(folder, console, 0.5 * seconds, seed)
    _picture(folder / "demo.png", toy, cancer)
    _explain(folder, console, 0.5 * seconds, seed)
    _say(console, f"\nDone in {time.monotonic() - started:.0f} s.")


# -- a toy, whose truth is known --------------------------------------------------------------------


def _fit_toy(console: Console, seconds: float, seed: int) -> ToyResult:
    _say(console, f"[bold]1. A density whose answer is known: {TOY.name}[/bold]")
    _say(console, f"Fitting a neural spline flow to {ROWS:,} points, {seconds:.0f} s ...")
    draws = generator(seed)
    flow = diffeo.presets.NSF(features=2, layers=3, hidden=64, bins=16).build()
    report = diffeo.fit(flow, TOY.sample(ROWS, draws), max_seconds=seconds, seed=seed)
    fresh = TOY.sample(FRESH, draws)
    model = in_parts(flow, flow.log_prob, fresh, batch_size=4096).double()
    excess = TOY.log_prob(fresh).double() - model
    gap, error = excess.mean().item(), excess.std().item() / math.sqrt(FRESH)
    _say(console, f"{report.steps:,} steps. Negative log-likelihood of {FRESH:,} fresh points, nats each:")
    _say(console, f"  the flow  {-model.mean().item():.3f}")
    _say(console, f"  at best   {TOY.entropy:.3f}, the exact entropy")
    _say(console, f"  [bold]the gap   {gap:.3f}[/bold] ± {error:.3f}, measured point by point\n")
    return ToyResult(TOY, flow, fresh, flow.sample(FRESH, generator=draws), gap)


# -- a real table ------------------------------------------------------------------------------------


def _fit_cancer(folder: Path, console: Console, seconds: float, seed: int) -> CancerResult:
    from sklearn.metrics import roc_auc_score

    names, benign, malignant = _breast_cancer()
    order = np.random.default_rng(seed).permutation(len(benign))
    held = len(benign) * 3 // 10
    table = Table.from_values(names, benign[order[held:]])
    rows = np.concatenate([benign[order[:held]], malignant])
    is_malignant = np.arange(len(rows)) >= held
    columns = dict(zip(names, rows.T, strict=True))
    held_out = Table.from_columns({"malignant": is_malignant.astype(int), **columns})
    table.write(folder / "benign_train.csv")
    held_out.write(folder / "held_out.csv")

    _say(console, f"[bold]2. A real table: breast cancer, {len(names)} measurements of cell nuclei[/bold]")
    _say(console, f"Fitting {len(table)} benign rows and no others, up to {seconds:.0f} s ...")
    flow, report = diffeo.fit_table(table, max_seconds=seconds, seed=seed)
    diffeo.save(flow, folder / "model.safetensors")
    scores = score_table(flow, held_out)
    Table(scores.columns()).write(folder / "scores.csv")
    sample_table(flow, len(table), seed=seed).write(folder / "samples.csv")

    auc = float(roc_auc_score(is_malignant, _surprise(scores.log_prob)))
    medians = [np.median(scores.log_prob[is_malignant == bad]) for bad in (False, True)]
    _say(console, f"{report.training.steps:,} steps ({report.training.stopped}).")
    _say(console, report.verdict)
    _say(console, "Median log-likelihood of rows it has not seen, nats:")
    _say(console, f"  {held} benign     {medians[0]:9.1f}")
    _say(console, f"  {len(malignant)} malignant  {medians[1]:9.1f}")
    _say(console, f"  [bold]ROC-AUC {auc:.3f}[/bold] for telling them apart by log-likelihood alone\n")
    return CancerResult(scores.log_prob, is_malignant, auc)


def _breast_cancer() -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Column names, benign rows, malignant rows; scikit-learn's target is 1 for benign."""
    from sklearn.datasets import load_breast_cancer

    bunch: Any = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in bunch.feature_names]
    return names, bunch.data[bunch.target == 1], bunch.data[bunch.target == 0]


def _surprise(log_prob: NDArray[np.float64]) -> NDArray[np.int64]:
    """Ranks from likely to unlikely: the same ROC curve, and rows outside the support may be -inf."""
    return np.unique(-log_prob, return_inverse=True)[1]


# -- what is left behind -------------------------------------------------------------------------------


def _picture(path: Path, toy: ToyResult, cancer: CancerResult) -> None:
    from matplotlib.figure import Figure
    from sklearn.metrics import roc_curve

    figure = Figure(figsize=(11, 7.6), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1.1, 1))
    above, below = halves
    data, model, drawn = above.subplots(1, 3)
    plots.samples(toy.data, data, LIMIT).set_title(f"{toy.toy.name}: data")
    plots.density(toy.flow, model, LIMIT).set_title(f"the flow's density, {toy.gap:.3f} nats off")
    plots.samples(toy.samples, drawn, LIMIT).set_title("the flow's samples")

    scores, roc = below.subplots(1, 2, width_ratios=(2, 1))
    finite = cancer.log_prob[np.isfinite(cancer.log_prob)]
    low, high = float(np.quantile(finite, 0.1)), float(finite.max())
    shown = np.clip(np.nan_to_num(cancer.log_prob, neginf=low), low, high)
    bins = np.linspace(low, high, 41)
    for name, which in (("benign", ~cancer.malignant), ("malignant", cancer.malignant)):
        share, label = np.full(which.sum(), 1 / which.sum()), f"{name}, {which.sum()} rows"
        scores.hist(shown[which], bins, weights=share, alpha=0.7, color=COLORS[name], label=label)
    scores.set(
        title="breast cancer: a flow of benign rows scores held-out rows",
        xlabel="log-likelihood, nats (all further left in the first bar)",
        ylabel="share of rows",
    )
    scores.legend(frameon=False)

    false, true, _ = roc_curve(cancer.malignant, _surprise(cancer.log_prob))
    roc.plot([0, 1], [0, 1], color=plots.COLORS["gray"], linewidth=0.8, linestyle=":")
    roc.plot(false, true, color=COLORS["malignant"], linewidth=2)
    roc.set(
        title=f"ROC, area {cancer.auc:.3f}",
        xlabel="benign rows flagged",
        ylabel="malignant rows found",
        aspect="equal",
    )
    for axes in (scores, roc):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _explain(folder: Path, console: Console, seconds: float, seed: int) -> None:
    _say(console, f"[bold]In {escape(clean(str(folder)))}[/bold]")
    width = max(map(len, FILES))
    for name, meaning in FILES.items():
        _say(console, f"  {name:{width}}  {meaning}")
    _say(console, "\n[bold]The same by hand, in that folder[/bold]")
    budget = f"--max-seconds {seconds:.0f} --seed {seed}"
    _say(console, f"  diffeo fit benign_train.csv -o model.safetensors {budget}")
    _say(console, "  diffeo score model.safetensors held_out.csv -o scores.csv")
    _say(console, f"  diffeo sample model.safetensors -n 250 -o samples.csv --seed {seed}")
    _say(console, "  diffeo info model.safetensors")


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
