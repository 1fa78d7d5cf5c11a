"""Stan posteriors by a flow and by Stan's own sampler, against posteriordb's reference draws.

    python benchmarks/posteriordb.py --data DIR [--posteriors NAME ...] [--seeds 0] [--steps 1500]

Every model is given as its Stan file alone. The flow's draws are resampled by their weights. Stan's sampler
runs with PyStan's defaults, four chains of 1,000 draws, a process a chain. Of each parameter: the error of
the mean in reference standard deviations, and the relative error of the standard deviation; the table has
the worst parameter, of the worst seed. The reference is 10,000 draws, with errors of
its own about 0.01 and 0.007. Stan's gradients are leapfrog steps, warmup included. Compiling is not timed.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import time
import types
from pathlib import Path
from typing import Any

import kit
import numpy as np
import torch

import diffeo

DRAWS = 4000
"""As many as Stan's four chains give."""


def options() -> kit.Options:
    parser = kit.Options(__doc__, data=..., seeds=..., threads=...)
    parser.option("--posteriors", None, "folders; all by default", nargs="+", metavar="NAME")
    parser.option("--steps", 1500, "of a fit")
    parser.option("--no-flow", False, "Stan's sampler only")
    parser.option("--no-hmc", False, "the flow only")
    return parser.option("--out", None, "JSON to write", type=Path)


def main() -> None:
    asked = options().ask()
    folder = kit.folder(asked, "posteriordb")
    found: list[kit.Row] = []
    for name in asked.posteriors or sorted(path.name for path in folder.iterdir() if path.is_dir()):
        reference = read_reference(folder / name)
        for seed in asked.seeds:
            for run in [*[by_flow] * (not asked.no_flow), *[by_hmc] * (not asked.no_hmc)]:
                row, draws = run(folder / name, seed, asked.steps)
                row = {"posterior": name, "seed": seed, **row, **errors(draws, reference)}
                print(json.dumps(row), file=sys.stderr, flush=True)
                found.append(row)
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(kit.shown(summary(found)))


def read_reference(folder: Path) -> dict[str, tuple[float, float]]:
    with np.load(folder / "reference_draws.npz", allow_pickle=False) as file:
        rows = zip(file["names"], file["mean"], file["sd"], strict=True)
        return {str(name): (float(mean), float(sd)) for name, mean, sd in rows}


def by_flow(folder: Path, seed: int, steps: int) -> tuple[kit.Row, dict[str, np.ndarray]]:
    target = diffeo.targets.Stan(folder / "model.stan", folder / "data.json")
    began = time.perf_counter()
    report = fit(target, seed, steps)
    x = report.weighted.resample(DRAWS, generator=torch.Generator().manual_seed(seed))
    row = {
        "by": "flow",
        "evaluations": report.evaluations,
        "gradients": report.gradients,
        "seconds": round(time.perf_counter() - began, 1),
        "pareto_k": round(report.pareto_k, 3),
        "ess": round(report.ess, 3),
        "log_z": round(report.log_z, 3),
        "log_z_error": round(report.log_z_error, 4),
        "doubts": list(report.doubts),
    }
    return row, target.named(x)


def fit(target: diffeo.targets.Stan, seed: int, steps: int) -> Any:
    """The whole of what a user writes, but for the seed."""
    torch.manual_seed(seed)
    flow = diffeo.presets.Tabular(features=target.features, layers=3, hidden=64).build()
    return diffeo.fit_target(flow, target, seed=seed, max_steps=steps)


def by_hmc(folder: Path, seed: int, steps: int) -> tuple[kit.Row, dict[str, np.ndarray]]:
    """PyStan's ``sample`` as it is; it takes as long as it takes."""
    stan = pystan()
    text = (folder / "model.stan").read_text(encoding="utf-8")
    values = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        posterior = stan.build(text, data=values, random_seed=seed + 1)
        forget(posterior.model_name)
        began = time.perf_counter()
        result = posterior.sample(num_chains=4, num_samples=1000, save_warmup=True)
        taken = time.perf_counter() - began
    names = zip(result.param_names, result.dims, strict=True)
    draws = {
        name: np.moveaxis(result[name][..., -DRAWS:], -1, 0).reshape(DRAWS, *shape) for name, shape in names
    }
    row = {
        "by": "hmc",
        "gradients": int(result["n_leapfrog__"].sum()),
        "seconds": round(taken, 1),
        "divergent": int(result["divergent__"][..., -DRAWS:].sum()),
    }
    return row, draws


def pystan() -> Any:
    """PyStan 3.10 looks for plugins with pkg_resources, which new setuptools lack; there are no plugins."""
    if "pkg_resources" not in sys.modules:
        stub = types.ModuleType("pkg_resources")
        stub.EntryPoint = object  # type: ignore[attr-defined]
        stub.iter_entry_points = lambda group: iter(())  # type: ignore[attr-defined]
        sys.modules["pkg_resources"] = stub
    import stan

    return stan


def forget(model: str) -> None:
    """PyStan keeps the draws of a seed in its cache, and would answer from there in no time."""
    import httpstan.cache

    for file in (httpstan.cache.cache_directory() / model).rglob("*.jsonlines.gz"):
        file.unlink()


def errors(draws: dict[str, np.ndarray], reference: dict[str, tuple[float, float]]) -> kit.Row:
    """The worst errors of mean and standard deviation; the reference's names are such as ``beta[1]``."""
    means, spreads = {}, {}
    for name, (mean, sd) in reference.items():
        matched = re.fullmatch(r"(\w+)(?:\[([\d,]+)\])?", name)
        assert matched, name
        index = tuple(int(i) - 1 for i in matched[2].split(",")) if matched[2] else ()
        column = draws[matched[1]][(slice(None), *index)]
        means[name] = abs(float(column.mean()) - mean) / sd
        spreads[name] = abs(float(column.std()) / sd - 1)
    worst_mean, worst_spread = max(means, key=means.__getitem__), max(spreads, key=spreads.__getitem__)
    return {
        "mean_error": round(means[worst_mean], 4),
        "mean_of": worst_mean,
        "sd_error": round(spreads[worst_spread], 4),
        "sd_of": worst_spread,
    }


def summary(found: list[kit.Row]) -> list[kit.Row]:
    """A row for a posterior and a way: errors and diagnostics of the worst seed, average costs."""
    lines = []
    for name, by in dict.fromkeys((row["posterior"], row["by"]) for row in found):
        rows = [row for row in found if (row["posterior"], row["by"]) == (name, by)]
        mean = max(rows, key=lambda row: row["mean_error"])
        spread = max(rows, key=lambda row: row["sd_error"])
        costs = ("evaluations", "gradients", "seconds", "log_z")
        costs = {key: sum(row[key] for row in rows) / len(rows) for key in costs if key in rows[0]}
        worst = {"pareto_k": max, "ess": min}
        worst = {key: best(row[key] for row in rows) for key, best in worst.items() if key in rows[0]}
        mean = {"mean, off": mean["mean_error"], "of": mean["mean_of"]}
        spread = {"sd, off %": 100 * spread["sd_error"], "of it": spread["sd_of"]}
        lines.append({"posterior": name, "by": by, **costs, **worst, **mean, **spread})
    return lines


if __name__ == "__main__":
    main()
