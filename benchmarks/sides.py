"""What one child process measures: a first call, interleaved warm pairs, or errors to float64. Prints one JSON line."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import peers
import torch
from case import Case, Part, inputs, network, targets
from cases import CASES
from timing import peak, spread, timed
from torch import Tensor, nn

import xai_fast as xf
from xai_fast.core.prepare import Prepared

FLOOR_ROWS = (1, 2, 4, 8, 16)
MOST_ROUNDS = 25
SHORT_SECONDS = 10

Clock = Callable[[], float]


def main() -> None:
    """Measures what the arguments name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["first", "pairs", "best", "error", "whole"])
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
    elif arguments.what == "whole":
        result = whole(case, arguments.setting)
    else:
        result = error(case)
    print(json.dumps(result))


def first(case: Case, side: str, setting: int) -> dict[str, Any]:
    """The first call in this process, with what it adds to the peak of memory."""
    model, x, target = _subject(case)
    if side == "peer":
        peers.load(case.library)
    before = peak()
    if side == "ours":
        seconds = timed(lambda: case.method(xf.Engine(model, plan=case.plan)).attribute(x, target))
    elif case.part is None:
        seconds = timed(lambda: case.peer(model, setting)(x, target))
    else:
        # What is cold is paid once: the rest of the units run at the warm rate.
        began = time.perf_counter()
        explain = case.peer(model, setting)
        explain(x, target, case.part.units)
        cold = time.perf_counter() - began
        none, part = (timed(lambda n=n: explain(x, target, n)) for n in (0, case.part.units))
        seconds = cold + (part - none) * (case.part.whole / case.part.units - 1)
    return {"seconds": seconds, "growth_bytes": peak() - before}


def pairs(case: Case, n: int) -> dict[str, Any]:
    """Warm calls of both sides, interleaved: ours, the library's default, its best setting, and that channels-last."""
    model, x, target = _subject(case)
    engine = xf.Engine(model, plan=case.plan, prepare=True)
    method = case.method(engine)
    method.attribute(x, target)  # prepares, and settles the batch size
    sweep = {setting: _swept(case, x, target, setting) for setting in case.sweep}
    best = min(sweep, key=sweep.__getitem__)
    sides: dict[str, Clock] = {"ours": lambda: timed(lambda: method.attribute(x, target))}
    sides["default"] = _peer(case, x, target, case.default)
    if best != case.default:
        sides["best"] = _peer(case, x, target, best)
    sides["channels_last"] = _peer(case, x.to(memory_format=torch.channels_last), target, best)
    times = _interleaved(sides, n)
    times.setdefault("best", times["default"])
    prepared = engine.prepared(frozenset(method.layers(x)), x)
    sizes = list(engine.decisions.entries.get("rows per forward", {}).values())
    return {
        "seconds": {name: spread(values) for name, values in times.items()},
        "rounds": len(times["default"]),
        "best_setting": best,
        "sweep_seconds": sweep,
        "preparation_seconds": prepared.seconds,
        "outside_share": _outside(method, x, target) if case.dense else None,
        "floor_fraction": _floor(method, prepared, x, statistics.median(times["ours"])) if case.dense else None,
        "batch_size": max(sizes, default=None),
    }


def best_pairs(case: Case, setting: int, n: int) -> dict[str, Any]:
    """Warm calls of ours and of the library at one setting, interleaved: what is repeated under another allocator."""
    model, x, target = _subject(case)
    method = case.method(xf.Engine(model, plan=case.plan, prepare=True))
    method.attribute(x, target)
    sides = {"ours": lambda: timed(lambda: method.attribute(x, target)), "best": _peer(case, x, target, setting)}
    return {"seconds": {name: spread(values) for name, values in _interleaved(sides, n).items()}}


def whole(case: Case, setting: int) -> dict[str, Any]:
    """One whole call of a peer that is otherwise timed in parts, beside what its part says in the same process."""
    _, x, target = _subject(case)
    clock = _peer(case, x, target, setting)
    explain = case.peer(network(case), setting)
    return {"from_part": clock(), "seconds": timed(lambda: explain(x, target))}


def _interleaved(sides: dict[str, Clock], n: int) -> dict[str, list[float]]:
    """At least n rounds, more where they are short; in long rounds, a side that takes no time has several turns."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    turns = dict.fromkeys(sides, 1)
    done = 0
    while done < n:
        began = time.perf_counter()
        for name, clock in sides.items():
            times[name] += [clock() for _ in range(turns[name])]
        if not done:
            round_seconds = time.perf_counter() - began
            n = max(n, min(MOST_ROUNDS, int(SHORT_SECONDS / round_seconds)))
            if round_seconds > 2:
                turns = {name: max(1, min(5, int(0.1 * round_seconds / times[name][0]))) for name in sides}
        done += 1
    return times


def error(case: Case) -> dict[str, Any]:
    """Errors of both float32 maps to the formula in float64, as shares of the largest value: largest and RMS."""
    model, x, target = _subject(case, case.precise_size)
    make, peer = case.precise or case.method, case.same_draws or case.precise_peer or case.peer
    # Our float64 path is checked against replicas in the tests; captum's occlusion rounds to float32 even there.
    truth = _comparable(case, make(network(case).double()).attribute(x.double(), target))
    scale = truth.abs().max()
    errors = {}
    for side, values in {
        "ours": make(model).attribute(x, target),
        "peer": peer(network(case), case.default)(x, target),
    }.items():
        difference = (_comparable(case, values.double()) - truth) / scale
        errors[side] = {"max": difference.abs().max().item(), "rms": difference.square().mean().sqrt().item()}
    return errors


def _subject(case: Case, size: int | None = None) -> tuple[nn.Module, Tensor, Tensor]:
    """The network, the photographs, and the outputs that both sides explain."""
    model, x = network(case), inputs(case, size)
    return model, x, targets(model, x, case.outputs)


def _comparable(case: Case, maps: Tensor) -> Tensor:
    """The maps, each scaled to [0, 1] where the library leaves nothing else to compare."""
    if not case.scaled:
        return maps
    low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-30)


def _peer(case: Case, x: Tensor, target: Tensor, setting: int) -> Clock:
    """Seconds of one call of the peer, warmed up, on a model of its own that is laid out as `x` is."""
    model = network(case)
    if not x.is_contiguous():
        model = model.to(memory_format=torch.channels_last)
    explain = case.peer(model, setting)
    if case.part is None:
        (case.precise_peer(model, setting) if case.precise_peer else explain)(x, target)
        return lambda: timed(lambda: explain(x, target))
    explain(x, target, setting if case.part.batched else 0)  # one batch, or what every call begins with
    return lambda: _scaled(case.part, lambda n: explain(x, target, n))


def _scaled(part: Part, run: Callable[[int], Tensor]) -> float:
    """Seconds that a whole call takes, from one with no unit and one with some."""
    none, some = (timed(lambda n=n: run(n)) for n in (0, part.units))
    return none + (some - none) * part.whole / part.units


def _swept(case: Case, x: Tensor, target: Tensor, setting: int) -> float:
    """Seconds of one warm call at a setting, on the coarse grid where there is one: a sweep needs only the order."""
    if case.part is not None:
        return _peer(case, x, target, setting)()
    explain = (case.precise_peer or case.peer)(network(case), setting)
    again = 1 if timed(lambda: explain(x, target)) > SHORT_SECONDS else 2  # the first call warms up
    return min(timed(lambda: explain(x, target)) for _ in range(again))


def _outside(method: Any, x: Tensor, target: Tensor) -> float | None:
    """The share of a warm call of a method without gradients that is not spent inside the model's forwards."""
    if method.cost(tuple(x.shape)).backwards:
        return None
    inside = 0.0
    original = Prepared.__call__

    def watched(self: Prepared, batch: Tensor) -> Any:
        nonlocal inside
        began = time.perf_counter()
        output = original(self, batch)
        inside += time.perf_counter() - began
        return output

    Prepared.__call__ = watched
    try:
        whole = timed(lambda: method.attribute(x, target))
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
            per_row.append(min(timed(lambda batch=batch: prepared(batch)) for _ in range(5)) / rows)
    return cost.forwards * min(per_row) / seconds


if __name__ == "__main__":
    main()
