"""What `gpu.py` measures: bytes moved, the model's best forwards, methods beside these, and libraries side by side."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from batches import BATCH_BYTES, WRITING, arguments_of, rows_of
from gpu_checks import _network, _photos, machine
from timing import spread
from torch import Tensor, nn

if TYPE_CHECKING:
    from gpu import Item, Where

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PACKAGES = {"grad-cam": "pytorch_grad_cam"}  # modules that are not named like their packages
SIDE_BY_SIDE = (
    "occlusion-resnet50",
    "saliency-resnet50",
    "gradcam-resnet50",
    "gradcam-resnet50-torchcam",
    "gradcam-resnet50-grad-cam",
    "integrated-gradients-resnet50",
    "smooth-grad-resnet50",
    "score-cam-resnet18",
    "layer-cam-resnet50",
)


def clocked(where: Where, run: Callable[[], Any], rounds: int = 10) -> dict[str, float]:
    """Seconds of a warm call, by the device's own clock: median and interquartile range."""
    for _ in range(1 if where.dry else 3):
        run()
    rounds = 2 if where.dry else rounds
    if where.device == "cpu":
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        return spread(times)
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
    for start, stop in marks:
        start.record()
        run()
        stop.record()
    torch.cuda.synchronize()
    return spread([start.elapsed_time(stop) / 1e3 for start, stop in marks])


def bandwidth(where: Where, _part: str) -> Iterator[Item]:
    """Bytes that each op that writes a batch moves over time, as a share of what a copy on the device moves."""
    from xai_fast import ops

    yield "machine", lambda: machine(where)
    copies = {size: 0.0 for size in ((1 << 20,) if where.dry else (BATCH_BYTES // 2, BATCH_BYTES, 4 * BATCH_BYTES))}

    def copy(size: int) -> dict[str, Any]:
        source = torch.zeros(size, dtype=torch.uint8, device=where.device)
        target = torch.empty_like(source)
        seconds = clocked(where, lambda: target.copy_(source), 20)
        copies[size] = 2 * size / seconds["median"]
        return {"bytes": 2 * size, "seconds": seconds, "bytes_per_second": copies[size]}

    for size in copies:
        yield f"copy of {size >> 20} MiB", lambda size=size: copy(size)
    backends = [name for name in ("cuda", "triton") if where.device == "cuda"] or ["cpp"]
    backends = [name for name in backends if ops.backends()[name] is None]
    for name, backend, dtype, layout in itertools.product(WRITING, backends, DTYPES, ("NHWC", "NCHW")):
        if backend not in ops.all_ops()[name].backends:
            continue

        def run(name: str = name, by: str = backend, dtype: str = dtype, layout: str = layout) -> dict[str, Any]:
            if not max(copies.values()):  # carried on with in a new process
                copy(max(copies))
            return _moved(where, name, by, DTYPES[dtype], layout, max(copies.values()))

        yield f"{name}, {dtype}, {layout}, {backend}", run


def _moved(where: Where, name: str, backend: str, dtype: torch.dtype, layout: str, copied: float) -> dict[str, Any]:
    from kernels import distinct_bytes
    from ops_support import run, tolerance

    from xai_fast import ops

    few = arguments_of(name, dtype, layout, 3, 32)
    expected, actual = run("reference", name, few), run(backend, name, few)
    off = (actual.double() - expected.double()).abs().max().item()
    allowed = tolerance(name, few, dtype, backend)
    rows = 4 if where.dry else rows_of(name, dtype, BATCH_BYTES)
    many = {
        key: value.to(where.device) if isinstance(value, Tensor) else value
        for key, value in arguments_of(name, dtype, layout, rows, 32 if where.dry else 224).items()
    }
    traffic = sum(distinct_bytes(value) for value in many.values())
    with ops.using(backend):
        seconds = clocked(where, lambda: getattr(ops, name)(**many), 20)
    rate = traffic / seconds["median"]
    return {
        **{"ok": off <= allowed, "off": off, "allowed": allowed, "bytes": traffic, "seconds": seconds},
        **{"bytes_per_second": rate, "of_copy": rate / copied},
    }


def forwards(where: Where, _part: str) -> Iterator[Item]:
    """The model's own best times per row, forward and with the gradient at the input: eager, compiled, graphed."""
    yield "machine", lambda: machine(where)
    for compiled, dtype, what, graphed in itertools.product(
        (False, True), DTYPES, ("forward", "gradient"), (False, True)
    ):
        if what == "gradient" and graphed:
            continue
        side = ("compiled" if compiled else "eager") + (", graphed" if graphed else "")
        run = functools.partial(_forward, where, what, dtype, compiled=compiled, graphed=graphed)
        yield f"{what}, {dtype}, {side}", run


def _forward(where: Where, what: str, dtype: str, *, compiled: bool, graphed: bool) -> dict[str, Any]:
    if graphed and where.device == "cpu":
        return {"skipped": "there are no CUDA graphs on the CPU"}
    model, x = subject(where)
    truth = model.double()(x.double()).detach()
    model = model.to(DTYPES[dtype]).to(memory_format=torch.channels_last)
    model.requires_grad_(False)
    called: Callable[[Tensor], Tensor] = model
    if compiled:
        called = torch.compile(model, backend="eager" if where.dry else "inductor")
    sizes = (2,) if where.dry else (256,) if compiled else (32, 128, 256)
    per_row, error = {}, 0.0
    for rows in sizes:
        batch = x.expand(rows, *x.shape[1:]).to(DTYPES[dtype]).contiguous(memory_format=torch.channels_last)
        if what == "gradient":
            run = lambda batch=batch: torch.autograd.grad(called(batch.requires_grad_())[:, 0].sum(), batch)  # noqa: E731
        else:
            run = _graph(called, batch) if graphed else (lambda batch=batch: called(batch))
        with torch.no_grad() if what == "forward" else contextlib.nullcontext():
            answer = called(batch.detach()).double()
            error = max(error, ((answer - truth).abs().max() / truth.abs().max()).item())
            per_row[str(rows)] = clocked(where, run)["median"] / rows
    return {"what": what, "dtype": dtype, "off": error, "per_row": per_row, "best": min(per_row.values())}


def _graph(called: Callable[[Tensor], Tensor], batch: Tensor) -> Callable[[], None]:
    with torch.no_grad():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                called(batch)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            called(batch)
    return graph.replay


def subject(where: Where) -> tuple[nn.Module, Tensor]:
    """The network and one photograph, on the device."""
    name, size = ("resnet18", 64) if where.dry else ("resnet50", 224)
    return _network(name).to(where.device), _photos(1, size).to(where.device)


def methods_of(where: Where) -> dict[str, tuple[str, str, Callable[[Any, bool], Any]]]:
    """By name: which forward is its floor, its plan, and how it is made, with few rows for what is compared."""
    import xai_fast as xf

    window, stride = (16, 16) if where.dry else (15, 8)
    n, layer = (4, "layer1") if where.dry else (50, "layer4")
    many = 6 if where.dry else 1000

    def occlusion(engine: Any, few: bool) -> Any:
        return xf.Occlusion(engine, window=32 if few else window, stride=32 if few else stride)

    def lime(engine: Any, few: bool) -> Any:
        return xf.Lime(engine, segments=segments_of(where), n_samples=60 if few else max(many, 60))

    return {
        "Occlusion": ("forward", "dense", occlusion),
        "Occlusion, replay": ("forward", "local", occlusion),
        "SmoothGrad": ("gradient", "dense", lambda e, few: xf.SmoothGrad(e, n_samples=4 if few else n)),
        "IntegratedGradients": ("gradient", "dense", lambda e, few: xf.IntegratedGradients(e, n_steps=4 if few else n)),
        "ScoreCAM": ("forward", "dense", lambda e, _few: xf.ScoreCAM(e, layer=layer)),
        "Lime": ("forward", "dense", lime),
        "RISE": ("forward", "dense", lambda e, few: xf.RISE(e, n_masks=8 if few else many)),
        "GradCAM": ("gradient", "auto", lambda e, _few: xf.GradCAM(e, layer="layer4")),
    }


def segments_of(where: Where) -> Tensor:
    """A label map of 7 x 7 cells."""
    size = 64 if where.dry else 224
    side = torch.arange(size) * 7 // size
    return side[:, None] * 7 + side


def speed(where: Where, _part: str) -> Iterator[Item]:
    """Methods on one photograph: seconds, rows, peak memory, and how far the map is from float64 on the device."""
    yield "machine", lambda: machine(where)
    for mode in ("exact", "fast"):
        for name in methods_of(where):
            yield f"{name}, {mode}", lambda name=name, mode=mode: _speed(where, name, mode)


def _speed(where: Where, name: str, mode: str) -> dict[str, Any]:
    import xai_fast as xf
    from xai_fast.engine import tiers

    floor, plan, make = methods_of(where)[name]
    model, x = subject(where)
    with torch.no_grad():
        target = model(x).argmax(1)
    engine = xf.Engine(model, plan=plan, mode=mode, prepare=True)
    few = make(engine, True).attribute(x, target).double()
    wide, _ = subject(where)
    truth = make(xf.Engine(wide.double(), plan="dense"), True).attribute(x.double(), target)
    off, allowed = _error(few, truth), 0.2
    if mode == "exact":  # where a ReLU tips over, the plain model in float32 errs as well
        plain, _ = subject(where)
        with tiers.assuming("plain"):
            theirs = make(xf.Engine(plain, plan="dense", batch_size=1), True).attribute(x, target).double()
        allowed = max(2.5 * _error(theirs, truth), 1e-4)
    method = make(engine, False)
    cost = method.cost(tuple(x.shape))
    method.attribute(x, target)
    if where.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated() if where.device == "cuda" else 0
    seconds = clocked(where, lambda: method.attribute(x, target), 3)
    peak = torch.cuda.max_memory_allocated() if where.device == "cuda" else 0
    prepared = engine.prepared(frozenset(method.layers(x)), x)
    rows = int(cost.backwards if floor == "gradient" else cost.forwards)
    return {
        **{"ok": off <= allowed, "off": off, "allowed": allowed, "seconds": seconds, "rows": rows, "floor": floor},
        **{"dtype": str(prepared.dtype).removeprefix("torch."), "peak_bytes": peak, "peak_growth_bytes": peak - held},
        "decided": engine.decisions.entries,
    }


def _error(values: Tensor, truth: Tensor) -> float:
    return ((values - truth).square().mean().sqrt() / truth.square().mean().sqrt()).item()


def libraries(where: Where, _part: str) -> Iterator[Item]:
    """Methods beside the libraries' own, on the device: each at its default and at the largest of its settings."""
    from cases import CASES

    chosen = [case for case in CASES if case.name in SIDE_BY_SIDE]
    for case in chosen[:3] if where.dry else chosen:
        smaller = dataclasses.replace(case, network="resnet18", size=64) if where.dry else case
        yield case.name, lambda case=smaller: _beside(where, case)


def _beside(where: Where, case: Any) -> dict[str, Any]:
    import xai_fast as xf

    if importlib.util.find_spec(PACKAGES.get(case.library, case.library)) is None:
        return {"skipped": f"{case.library} is not installed"}
    import case as cases
    from sides import _comparable

    x = cases.inputs(case).to(where.device)
    model = cases.network(case).to(where.device)
    target = cases.targets(model, x, case.outputs)
    method = case.method(xf.Engine(model, plan=case.plan, prepare=True))
    ours = _comparable(case, method.attribute(x, target).double())
    of_library: dict[int, dict[str, float]] = {}
    theirs = ours
    for setting in sorted({case.default, max(case.sweep)}):
        explain = case.peer(cases.network(case).to(where.device), setting)
        theirs = _comparable(case, explain(x, target).double())
        of_library[setting] = clocked(where, lambda explain=explain: explain(x, target), 3)
    seconds = clocked(where, lambda: method.attribute(x, target), 3)
    drawn = case.same_draws is not None  # maps of other draws differ by chance; their speed is comparable
    off = ((ours - theirs).norm() / theirs.norm()).item()
    best = min(times["median"] for times in of_library.values())
    return {
        **{"ok": drawn or off < 1e-2, "off": off, "drawn": drawn, "seconds": seconds, "library": case.library},
        **{"library_seconds": {str(key): times for key, times in of_library.items()}},
        "times_library": best / seconds["median"],
    }
