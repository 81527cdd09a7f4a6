"""What `gpu.py` measures of fused steps: the prepared forward with each of them said, and as it decides by itself."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from gpu_checks import machine
from gpu_speed import clocked, subject
from torch import Tensor, nn

if TYPE_CHECKING:
    from gpu import Item, Where

WAYS: dict[str, dict[str, Any]] = {
    "public": {"implementation": "public"},
    "apart": {"joined": False, "recorded": False},
    "joined": {"joined": True, "recorded": False},
    "joined, recorded": {"joined": True, "recorded": True},
    "decided": {},
}
MODES = {"exact": "float32", "fast": "float16"}
SETTLED = 8  # forwards after which every size was tried


def fused(where: Where, _part: str) -> Iterator[Item]:
    """A few rows through the prepared network, by every way to run its steps; what was tried and refused, and why."""
    yield "machine", lambda: machine(where)
    for mode, rows, way in itertools.product(MODES, (1, 2) if where.dry else (1, 8, 32, 128), WAYS):
        yield f"forward of {rows}, {mode}, {way}", functools.partial(_fused, where, mode, rows, way)


@torch.no_grad()
def _fused(where: Where, mode: str, rows: int, way: str) -> dict[str, Any]:
    import xai_fast as xf
    from xai_fast.graph.processor import assuming

    model, x = subject(where)
    shifts = torch.linspace(0.5, 1.5, rows, device=x.device).view(-1, 1, 1, 1)
    inputs = x * shifts
    truth = _double(where)(inputs.double())
    plain = model(inputs).double()
    with assuming(**WAYS[way]):
        engine = xf.Engine(model, mode=mode, prepare=True)  # type: ignore[arg-type]
        with engine.turn(1):
            prepared = engine.prepared(frozenset(), x)
            batch = prepared.empty(rows, x).copy_(inputs)
            for _ in range(SETTLED):
                answer = prepared(batch.clone(memory_format=torch.preserve_format))
            seconds = clocked(where, lambda: prepared(batch), 20)
        captured = next(iter(prepared.captured.values()), None)
        decided = engine.decisions.entries
    off, theirs = _error(answer, truth), _error(plain, truth)
    allowed = max(4 * theirs, 1e-4) if mode == "exact" else 0.05
    dtype = str(prepared.dtype).removeprefix("torch.")
    return {
        **{"ok": off <= allowed, "off": off, "allowed": allowed, "their_off": theirs, "seconds": seconds},
        **{"rows": rows, "floor": "forward", "dtype": dtype, "decided": decided},
        **({} if captured is None else _told(captured)),
    }


def _told(captured: Any) -> dict[str, Any]:
    """Which steps are fused by what, how many sizes are joined, and what was refused."""
    sources = [getattr(step.call, "source", None) for step in captured.steps]
    kinds = [type(source).__name__ for source in sources if source is not None]
    met = [found for source in sources for found in getattr(source, "_met", {}).values()]
    refused = [getattr(source, "refused", "") for source in sources]
    return {
        "steps": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "ways": {way: met.count(way) for way in sorted({found for found in met if isinstance(found, str)})},
        "recordings": captured.grown,
        "refused": sorted({reason for reason in [*refused, getattr(captured._whole, "refused", "")] if reason}),
    }


@functools.cache
def _double(where: Where) -> nn.Module:
    model, _ = subject(where)
    return model.double()


def _error(answer: Tensor, truth: Tensor) -> float:
    return ((answer.double() - truth).abs().max() / truth.abs().max()).item()
