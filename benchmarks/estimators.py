"""How far estimates of coalition methods are off, by sampler and number of evaluations: see README.md.

    python benchmarks/estimators.py --json estimators.json --picture estimators.png

For each photograph the network is asked once about all 2^12 coalitions of 12 segments. What is estimated then is known,
and estimators are run on the table of those scores, with many seeds: at fixed numbers of samples, and in mode "turbo",
which stops by itself.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from methods import CONSOLE, save
from rich.table import Table
from torch import Tensor
from trained import subjects

import xai_fast as xf
from xai_fast.methods.lime import proximity

ROWS, COLUMNS = 3, 4  # of cells
PLAYERS = ROWS * COLUMNS
BUDGETS = (64, 128, 256, 512, 1024)
PENALISED = 1000  # samples for which `alpha` stands: it is scaled with their number, so that all budgets have one limit
# Estimator: settings that all samplers share; the sampler to beat; the one that should; the share of evaluations asked.
ESTIMATORS: dict[str, tuple[str, dict[str, Any], tuple[str, ...], float]] = {
    "KernelShap": ("KernelShap", {}, ("kernel", "leverage", "paired"), 0.5),
    "Lime, width 0.25": ("Lime", {"kernel_width": 0.25, "alpha": 1.0}, ("bernoulli", "glime"), 0.25),
    "Lime, width 0.25, alpha 0": ("Lime", {"kernel_width": 0.25, "alpha": 0.0}, ("bernoulli", "glime"), 0.25),
    "Lime, width 0.1, alpha 0": ("Lime", {"kernel_width": 0.1, "alpha": 0.0}, ("bernoulli", "glime"), 0.25),
}
# What may stop early: the method, its settings, and the tolerance.
TURBO: dict[str, tuple[str, dict[str, Any], float]] = {
    "KernelShap, turbo": ("KernelShap", {"n_samples": 2048}, 0.1),
    "KernelShap, turbo, 0.03": ("KernelShap", {"n_samples": 2048}, 0.03),
    "ShapleySampling, turbo": ("ShapleySampling", {"n_permutations": 400}, 0.1),
    "ShapleySampling, antithetic, turbo": ("ShapleySampling", {"n_permutations": 400, "sampler": "antithetic"}, 0.1),
}


def main() -> None:
    """Runs every estimator, prints a table, writes the records and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--json", type=Path, help="write the records to this file")
    parser.add_argument("--picture", type=Path, help="write the curves to this file")
    arguments = parser.parse_args()
    tables = scores(arguments.photographs)
    records = [measure(name, tables, arguments.seeds) for name in ESTIMATORS]
    stops = [stopped(name, tables, arguments.seeds) for name in TURBO]
    if arguments.json:
        save(arguments.json, arguments.seeds, [*records, *stops])
    if arguments.picture:
        draw(records, arguments.picture)
    CONSOLE.print(table(records))
    CONSOLE.print(table_of_stops(stops))


@torch.no_grad()
def scores(count: int) -> list[Tensor]:
    """Per photograph (4096,) float64: the score of the true class of every coalition, hidden cells being grey."""
    model, inputs, targets = subjects("demo", count, 112)
    rows, columns = (torch.arange(extent) for extent in inputs.shape[2:])
    cells = (rows * ROWS // len(rows))[:, None] * COLUMNS + columns * COLUMNS // len(columns)
    tables = []
    for x, target in zip(inputs, targets.tolist(), strict=True):
        parts = [model(x * shown[:, cells][:, None])[:, target] for shown in coalitions().float().split(64)]
        tables.append(torch.cat(parts).double())
    return tables


def coalitions() -> Tensor:
    """BoolTensor (4096, 12): all of them, as numbers written in base 2."""
    return torch.tensor(list(itertools.product((False, True), repeat=PLAYERS)))


def game(table: Tensor) -> Callable[[Tensor], Tensor]:
    """A model of inputs (rows, 1, 12) of 0 and 1 that looks the score up."""
    powers = 2 ** torch.arange(PLAYERS - 1, -1, -1)
    return lambda shown: table[(shown[:, 0] > 0.5).long() @ powers][:, None]


def truth(method: str, settings: dict[str, Any], table: Tensor) -> Tensor:
    """(12,) what the estimator tends to: Shapley values, or the coefficients of the weighted, penalised fit."""
    if method == "KernelShap":
        return _estimate(method, table, {"n_samples": 1 << PLAYERS})
    shown = coalitions().double()
    weight = proximity(shown.sum(1), PLAYERS, settings["kernel_width"])[:, None]
    design = torch.cat([torch.ones_like(weight), shown], dim=1)
    penalty = torch.full((PLAYERS + 1,), settings["alpha"] * len(table) / PENALISED, dtype=torch.float64)
    penalty[0] = 0.0  # the intercept's
    return torch.linalg.solve((design * weight).T @ design + penalty.diag(), (design * weight).T @ table)[1:]


def _estimate(method: str, table: Tensor, settings: dict[str, Any]) -> Tensor:
    made = getattr(xf, method)(game(table), segments=torch.arange(PLAYERS), baseline=0.0, **settings)
    return made.attribute(torch.ones(1, 1, PLAYERS, dtype=torch.float64), 0).flatten()


def measure(name: str, tables: list[Tensor], seeds: int) -> dict[str, Any]:
    """RMS errors over photographs, segments and seeds, as shares of the RMS value, and evaluations at equal error."""
    method, settings, samplers, bar = ESTIMATORS[name]
    errors: dict[str, list[float]] = {sampler: [] for sampler in samplers}
    for sampler, budget in itertools.product(samplers, BUDGETS):
        squares = []
        for table in tables:
            expected = truth(method, settings, table)
            scale = expected.square().mean()
            for seed in range(seeds):
                given = {**settings, "sampler": sampler, "n_samples": budget, "seed": seed}
                if "alpha" in settings:
                    given["alpha"] = settings["alpha"] * budget / PENALISED
                difference = _estimate(method, table, given) - expected
                squares.append(float(difference.square().mean() / scale))
        errors[sampler].append(math.sqrt(statistics.fmean(squares)))
    classic, better = samplers[:2]
    return {
        "case": name,
        "estimator": method,
        "settings": settings,
        "players": PLAYERS,
        "photographs": len(tables),
        "evaluations": list(BUDGETS),
        "errors": errors,
        "bars": {"share": bar},
        "share": share(errors[classic], errors[better]),
    }


def stopped(name: str, tables: list[Tensor], seeds: int) -> dict[str, Any]:
    """Evaluations at which an estimator stops, and its true errors, as shares of the map, beside those it states."""
    method, settings, tolerance = TURBO[name]
    ids, evaluations, errors, stated, relative = torch.arange(seeds), [], [], [], []
    for table in tables:
        expected = truth("KernelShap", {}, table)
        made = getattr(xf, method)(
            xf.Engine(game(table), mode="turbo"), segments=torch.arange(PLAYERS), tolerance=tolerance, **settings
        )
        found = made(torch.ones(seeds, 1, PLAYERS, dtype=torch.float64), 0, sample_ids=ids)
        error = found.values.flatten(1) - expected
        evaluations.append(found.evaluations.double())
        errors.append(error.square().mean() / expected.square().mean())
        stated.append(found.standard_error.square().mean() / expected.square().mean())
        relative.append(error.norm(dim=1) / expected.norm())
    run = torch.cat(evaluations)
    return {
        "case": name,
        "stops": method,
        "settings": settings,
        "tolerance": tolerance,
        "players": PLAYERS,
        "photographs": len(tables),
        "allowed": made.cost((1, PLAYERS)).forwards,
        "evaluations": {"median": float(run.median()), "most": float(run.max())},
        "error": math.sqrt(torch.stack(errors).mean()),
        "stated": math.sqrt(torch.stack(stated).mean()),
        "within": float((torch.cat(relative) <= 1.5 * tolerance).double().mean()),
        "bars": {"within": 0.95, "error_over_stated": [0.85, 1.15]},
    }


def share(classic: list[float], better: list[float]) -> float:
    """The share of the evaluations with which the better sampler errs as the classic one does at the most of them.

    Between budgets errors follow powers of the number; below the fewest, the share is an upper bound.
    """
    wanted = math.log(classic[-1])
    points = list(zip(map(math.log, BUDGETS), map(math.log, better), strict=True))
    if points[0][1] <= wanted:
        return BUDGETS[0] / BUDGETS[-1]
    for (n, error), (more, less) in itertools.pairwise(points):
        if less <= wanted:
            return math.exp(n + (more - n) * (error - wanted) / (error - less)) / BUDGETS[-1]
    return math.exp((points[-1][1] - wanted) * 2)  # the error falls with the root of the number


def table(records: list[dict[str, Any]]) -> Table:
    """The records as a person reads them."""
    made = Table(
        "estimator", "sampler", *(f"{budget} samples" for budget in BUDGETS), "evaluations at equal error", "bar"
    )
    for record in records:
        for n, (sampler, errors) in enumerate(record["errors"].items()):
            last = (f"{record['share']:.2f}", f"{record['bars']['share']:g}") if n == 1 else ("", "")
            made.add_row("" if n else record["case"], sampler, *(f"{error:.1%}" for error in errors), *last)
    return made


def table_of_stops(records: list[dict[str, Any]]) -> Table:
    """Likewise of the estimators that stop."""
    made = Table(
        "estimator", "tolerance", "evaluations", "at most", "allowed", "RMS error", "stated", "within 1.5 tolerances"
    )
    for record in records:
        ends = [f"{record['evaluations'][which]:.0f}" for which in ("median", "most")]
        errors = [f"{record[which]:.1%}" for which in ("error", "stated", "within")]
        made.add_row(record["case"], f"{record['tolerance']:g}", *ends, str(record["allowed"]), *errors)
    return made


def draw(records: list[dict[str, Any]], path: Path) -> None:
    """The curves, a panel per estimator."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(records), figsize=(4 * len(records), 3.6), constrained_layout=True)
    for axis, record in zip(axes, records, strict=True):
        for sampler, errors in record["errors"].items():
            axis.loglog(record["evaluations"], errors, marker="o", label=sampler)
        axis.set(title=record["case"], xlabel="samples", xticks=BUDGETS, xticklabels=BUDGETS)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    axes[0].set_ylabel("RMS error / RMS value")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
