"""``diffeo demo``: a toy density with its exact answer, then a real job on a real table, in about a minute."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

import diffeo
from diffeo import plots
from diffeo.data.toys import TOYS, Toy

TOY = "2spirals"
ROWS, FRESH = 50_000, 20_000
LIMIT = 4.0
COLORS = {"benign": plots.COLORS["blue"], "malignant": plots.COLORS["orange"]}
FILES = {
    "benign_train.csv": "the rows the model learned from",
    "held_out.csv": "the rows it was tried on, benign and malignant",
    "model.safetensors": "the model",
    "scores.csv": "log-likelihood of each held-out row, and its diagnosis, which the model never saw",
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
    toy = TOYS[TOY]
    _say(console, f"[bold]1. A density whose answer is known: {TOY}[/bold]")
    _say(console, f"Fitting a neural spline flow to {ROWS:,} points, {seconds:.0f} s ...")
    generator = torch.Generator().manual_seed(seed)
    flow = diffeo.presets.NSF(features=2).build()
    report = diffeo.fit(flow, toy.sample(ROWS, generator), max_seconds=seconds, seed=seed)
    fresh = toy.sample(FRESH, generator)
    with torch.no_grad():
        model = torch.cat([flow.log_prob(part) for part in fresh.split(4096)]).double()
    excess = toy.log_prob(fresh).double() - model
    gap, error = excess.mean().item(), excess.std().item() / math.sqrt(FRESH)
    _say(console, f"{report.steps:,} steps. On {FRESH:,} fresh points:")
    _say(console, f"  model  {-model.mean().item():.3f} nats a point")
    _say(console, f"  truth  {toy.entropy:.3f} nats a point, the exact entropy: no model can do better")
    _say(console, f"  [bold]gap    {gap:.3f}[/bold] ± {error:.3f} nats, point by point against the exact density\n")
    return ToyResult(toy, flow, fresh, flow.sample(FRESH, generator=generator), gap)


# -- a real table ------------------------------------------------------------------------------------


def _fit_cancer(folder: Path, console: Console, seconds: float, seed: int) -> CancerResult:
    from sklearn.metrics import roc_auc_score

    names, benign, malignant = _breast_cancer()
    order = np.random.default_rng(seed).permutation(len(benign))
    held = len(benign) * 3 // 10
    train, rows = benign[order[held:]], np.concatenate([benign[order[:held]], malignant])
    is_malignant = np.arange(len(rows)) >= held
    table = _table(names, train)
    table.write(folder / "benign_train.csv")
    _table(names, rows).write(folder / "held_out.csv")

    _say(console, "[bold]2. A real table: breast cancer, 30 measurements of cell nuclei per patient[/bold]")
    _say(console, f"Fitting {len(train)} benign patients, and no others, up to {seconds:.0f} s ...")
    flow, report = diffeo.fit_table(table, max_seconds=seconds, seed=seed)
    diffeo.save(flow, folder / "model.safetensors")
    with torch.no_grad():
        log_prob = flow.log_prob(torch.from_numpy(rows)).double().numpy()
    auc = float(roc_auc_score(is_malignant, _surprise(log_prob)))
    _write_scores(folder / "scores.csv", log_prob, is_malignant)
    generator = torch.Generator().manual_seed(seed)
    _table(names, flow.sample(len(train), generator=generator).double().numpy()).write(folder / "samples.csv")

    benign_median, malignant_median = (np.median(log_prob[is_malignant == m]) for m in (False, True))
    _say(console, f"{report.steps:,} steps, stopped: {report.stopped}. On rows it has not seen:")
    _say(console, f"  {held} benign     median log-likelihood {benign_median:8.1f} nats")
    _say(console, f"  {len(malignant)} malignant  median log-likelihood {malignant_median:8.1f} nats")
    _say(console, f"  [bold]ROC-AUC {auc:.3f}[/bold] for telling them apart by log-likelihood alone\n")
    return CancerResult(log_prob, is_malignant, auc)


def _breast_cancer() -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Column names, benign rows, malignant rows; scikit-learn's target is 1 for benign."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in bunch.feature_names]
    return names, bunch.data[bunch.target == 1], bunch.data[bunch.target == 0]


def _table(names: list[str], rows: NDArray[np.float64]) -> diffeo.Table:
    return diffeo.Table.from_columns(dict(zip(names, rows.T, strict=True)))


def _surprise(log_prob: NDArray[np.float64]) -> NDArray[np.int64]:
    """Ranks from likely to unlikely: the same ROC curve, and rows outside the support may be -inf."""
    return np.unique(-log_prob, return_inverse=True)[1]


def _write_scores(path: Path, log_prob: NDArray[np.float64], malignant: NDArray[np.bool_]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["log_prob", "diagnosis"])
        for value, bad in zip(log_prob, malignant, strict=True):
            writer.writerow([f"{value:.6g}", "malignant" if bad else "benign"])


# -- what is left behind -------------------------------------------------------------------------------


def _picture(path: Path, toy: ToyResult, cancer: CancerResult) -> None:
    from matplotlib.figure import Figure
    from sklearn.metrics import roc_curve

    figure = Figure(figsize=(11, 7.6), layout="constrained")
    grid = figure.add_gridspec(2, 6, height_ratios=(1.15, 1))
    data, model, drawn = (figure.add_subplot(grid[0, i : i + 2]) for i in (0, 2, 4))
    plots.samples(toy.data, data, LIMIT).set_title(f"{toy.toy.name}: data")
    plots.density(toy.flow, model, LIMIT).set_title(f"the flow's density, {toy.gap:.3f} nats from the truth")
    plots.samples(toy.samples, drawn, LIMIT).set_title("the flow's samples")

    scores = figure.add_subplot(grid[1, :4])
    finite = cancer.log_prob[np.isfinite(cancer.log_prob)]
    low, high = float(np.quantile(finite, 0.1)), float(finite.max())
    shown = np.clip(np.nan_to_num(cancer.log_prob, neginf=low), low, high)
    bins = np.linspace(low, high, 41)
    for name, which in (("benign", ~cancer.malignant), ("malignant", cancer.malignant)):
        label = f"{name}, {which.sum()} rows"
        scores.hist(shown[which], bins, density=True, alpha=0.7, color=COLORS[name], label=label)
    scores.set(
        title="breast cancer: a flow of benign rows scores held-out rows",
        xlabel="log-likelihood, nats (all further left in the first bar)",
        ylabel="share of rows a nat",
    )
    scores.legend(frameon=False)

    roc = figure.add_subplot(grid[1, 4:])
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
    _say(console, f"[bold]In {folder}[/bold]")
    width = max(map(len, FILES))
    for name, meaning in FILES.items():
        _say(console, f"  {name:{width}}  {meaning}")
    _say(console, "\n[bold]The same by hand, in that folder[/bold]")
    _say(console, f"  diffeo fit benign_train.csv -o model.safetensors --max-seconds {seconds:.0f} --seed {seed}")
    _say(console, "  diffeo score model.safetensors held_out.csv -o scores.csv")
    _say(console, "  diffeo sample model.safetensors -n 250 -o samples.csv")
    _say(console, "  diffeo info model.safetensors")


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
