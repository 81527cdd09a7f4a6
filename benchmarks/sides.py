"""What one child process measures: a first call, interleaved warm pairs, or errors to float64. Prints one JSON line."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from cases import CASES, Case, inputs, network, targets
from torch import Tensor, nn

import xai_fast as xf
from xai_fast.core.prepare import Prepared

FLOOR_ROWS = (1, 2, 4, 8, 16)


def main() -> None:
    """Measures what the arguments name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["first", "pairs", "best", "error"])
    parser.add_argument("case")
    parser.add_argument("--side", choices=["ours", "peer"], default="ours")
    parser.add_argument("--setting", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    case = next(case for case in CASES if case.name == arguments.case)
    if arguments.what == "first":
        result = first(case, arguments.side, arguments.setting)
    elif arguments.what == "pairs":
        result = pairs(case, arguments.pairs)
    elif arguments.what == "best":
        result = best_pairs(case, arguments.setting, arguments.pairs)
    else:
        result = error(case)
    print(json.dumps(result))


def first(case: Case, side: str, setting: int) -> dict[str, Any]:
    """The first call in this process, with what it adds to the peak of memory."""
    model, x = network(case), inputs(case)
    target = targets(case, model, x)
    call = (
        (lambda: case.method(model).attribute(x, target)) if side == "ours" else _peer(case, model, x, target, setting)
    )
    before = _peak()
    seconds = _timed(call)
    return {"seconds": seconds, "growth_bytes": _peak() - before}


def pairs(case: Case, n: int) -> dict[str, Any]:
    """Warm calls of both sides, interleaved: ours, the library's default, its best setting, and that channels-last."""
    model, x = network(case), inputs(case)
    target = targets(case, model, x)
    engine = xf.Engine(model)
    method = case.method(engine)
    sides: dict[str, Callable[[], Tensor]] = {"ours": lambda: method.attribute(x, target)}
    _timed(sides["ours"])  # prepares, and settles the batch size
    sweep = {setting: _swept(case, model, x, target, setting) for setting in case.sweep}
    best = min(sweep, key=sweep.__getitem__)
    sides["default"] = _peer(case, model, x, target, case.default)
    if best != case.default:
        sides["best"] = _peer(case, model, x, target, best)
    laid_out = network(case).to(memory_format=torch.channels_last)
    x_laid_out = x.to(memory_format=torch.channels_last)
    sides["channels_last"] = _peer(case, laid_out, x_laid_out, target, best)
    times = _interleaved(sides, n)
    times.setdefault("best", times["default"])
    prepared = engine.prepared(frozenset(method.layers(x)), x)
    return {
        "seconds": {name: _summary(values) for name, values in times.items()},
        "best_setting": best,
        "sweep_seconds": sweep,
        "preparation_seconds": prepared.seconds,
        "outside_share": _outside(method, x, target),
        "floor_fraction": _floor(method, prepared, x, statistics.median(times["ours"])),
        "batch_size": max(prepared.batch_sizes.values(), default=None),
    }


def best_pairs(case: Case, setting: int, n: int) -> dict[str, Any]:
    """Warm calls of ours and of the library at one setting, interleaved: what is repeated under another allocator."""
    model, x = network(case), inputs(case)
    target = targets(case, model, x)
    method = case.method(xf.Engine(model))
    sides = {"ours": lambda: method.attribute(x, target), "best": _peer(case, model, x, target, setting)}
    _timed(sides["ours"])
    (case.precise_peer or case.peer)(model, x, target, setting)
    return {"seconds": {name: _summary(values) for name, values in _interleaved(sides, n).items()}}


def _interleaved(sides: dict[str, Callable[[], Any]], n: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(n):
        for name, call in sides.items():
            times[name].append(_timed(call))
    return times


def error(case: Case) -> dict[str, Any]:
    """Errors of both float32 maps to the formula in float64, as shares of the largest value: largest and RMS."""
    model, x = network(case), inputs(case)
    target = targets(case, model, x)
    make, peer = case.precise or case.method, case.precise_peer or case.peer
    # Our float64 path is checked against replicas in the tests; captum's occlusion rounds to float32 even there.
    truth = make(network(case).double()).attribute(x.double(), target)
    scale = truth.abs().max()
    errors = {}
    for side, values in {
        "ours": make(model).attribute(x, target),
        "peer": peer(model, x, target, case.default),
    }.items():
        difference = (values.double() - truth) / scale
        errors[side] = {"max": difference.abs().max().item(), "rms": difference.square().mean().sqrt().item()}
    return errors


def _peer(case: Case, model: nn.Module, x: Tensor, target: Tensor, setting: int) -> Callable[[], Tensor]:
    return lambda: case.peer(model, x, target, setting)


def _swept(case: Case, model: nn.Module, x: Tensor, target: Tensor, setting: int) -> float:
    """Seconds of one warm call at a setting, on the coarse grid where there is one: a sweep needs only the order."""
    peer = case.precise_peer or case.peer
    peer(model, x, target, setting)
    return min(_timed(lambda: peer(model, x, target, setting)) for _ in range(2))


def _outside(method: Any, x: Tensor, target: Tensor) -> float | None:
    """The share of a warm call of a method without gradients that is not spent inside the model's forwards."""
    if method.cost(tuple(x.shape)).backwards:
        return None
    inside = 0.0
    original = Prepared.__call__

    def timed(self: Prepared, batch: Tensor) -> Any:
        nonlocal inside
        began = time.perf_counter()
        output = original(self, batch)
        inside += time.perf_counter() - began
        return output

    Prepared.__call__ = timed
    try:
        whole = _timed(lambda: method.attribute(x, target))
    finally:
        Prepared.__call__ = original
    return 1 - inside / whole


def _floor(method: Any, prepared: Prepared, x: Tensor, seconds: float) -> float | None:
    """Rows times the best time per row of the same prepared model, over the time that was taken."""
    cost = method.cost(tuple(x.shape))
    if cost.backwards:
        return None
    per_row = []
    with torch.no_grad():
        for rows in FLOOR_ROWS:
            batch = prepared.empty(rows, x).copy_(x[:1].expand(rows, *x.shape[1:]))
            prepared(batch)
            per_row.append(min(_timed(lambda batch=batch: prepared(batch)) for _ in range(5)) / rows)
    return cost.forwards * min(per_row) / seconds


def _summary(values: list[float]) -> dict[str, float]:
    quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {"median": statistics.median(values), "iqr": quartiles[2] - quartiles[0]}


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
