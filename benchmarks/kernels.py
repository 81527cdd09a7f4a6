"""Times every backend of every op on the workloads it is tested on, beside a plain copy of the same number of bytes.

    python benchmarks/kernels.py --op hide_windows --dtype float32 --json kernels.json

Backends take turns, so that a busy machine slows all of them. A time counts only where the result agrees with the
reference, which is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from xai_fast import ops
from xai_fast.ops._cases import Case
from xai_fast.ops.add_noise.cases import CASES as ADD_NOISE
from xai_fast.ops.bias_relu.cases import CASES as BIAS_RELU
from xai_fast.ops.blend_maps.cases import CASES as BLEND_MAPS
from xai_fast.ops.byte_hash.cases import CASES as BYTE_HASH
from xai_fast.ops.cam_reduce.cases import CASES as CAM_REDUCE
from xai_fast.ops.gated_pointwise.cases import CASES as GATED_POINTWISE
from xai_fast.ops.grid_masks.cases import CASES as GRID_MASKS
from xai_fast.ops.grid_reduce.cases import CASES as GRID_REDUCE
from xai_fast.ops.hide_segments.cases import CASES as HIDE_SEGMENTS
from xai_fast.ops.hide_windows.cases import CASES as HIDE_WINDOWS
from xai_fast.ops.inverted_bottleneck.cases import CASES as INVERTED_BOTTLENECK
from xai_fast.ops.moments.cases import CASES as MOMENTS
from xai_fast.ops.pass_bits.cases import CASES as PASS_BITS
from xai_fast.ops.path_points.cases import CASES as PATH_POINTS
from xai_fast.ops.region_gather.cases import CASES as REGION_GATHER
from xai_fast.ops.relu_change.cases import CASES as RELU_CHANGE
from xai_fast.ops.sign_bits.cases import CASES as SIGN_BITS
from xai_fast.ops.surrogate_normal.cases import CASES as SURROGATE_NORMAL
from xai_fast.ops.window_mean.cases import CASES as WINDOW_MEAN
from xai_fast.ops.winograd_convolution.cases import CASES as WINOGRAD_CONVOLUTION


def moments(**arguments: Any) -> Tensor:
    ops.moments(**arguments)
    return arguments["total"]


def surrogate_normal(**arguments: Any) -> Tensor:
    return torch.cat(ops.surrogate_normal(**arguments), dim=1)


OPS: dict[str, tuple[Callable[..., Tensor], tuple[Case, ...]]] = {
    "hide_windows": (ops.hide_windows, HIDE_WINDOWS),
    "hide_segments": (ops.hide_segments, HIDE_SEGMENTS),
    "grid_masks": (ops.grid_masks, GRID_MASKS),
    "grid_reduce": (ops.grid_reduce, GRID_REDUCE),
    "window_mean": (ops.window_mean, WINDOW_MEAN),
    "cam_reduce": (ops.cam_reduce, CAM_REDUCE),
    "region_gather": (ops.region_gather, REGION_GATHER),
    "add_noise": (ops.add_noise, ADD_NOISE),
    "path_points": (ops.path_points, PATH_POINTS),
    "blend_maps": (ops.blend_maps, BLEND_MAPS),
    "moments": (moments, MOMENTS),
    "surrogate_normal": (surrogate_normal, SURROGATE_NORMAL),
    "relu_change": (ops.relu_change, RELU_CHANGE),
    "bias_relu": (ops.bias_relu, BIAS_RELU),
    "sign_bits": (ops.sign_bits, SIGN_BITS),
    "pass_bits": (ops.pass_bits, PASS_BITS),
    "winograd_convolution": (ops.winograd_convolution, WINOGRAD_CONVOLUTION),
    "inverted_bottleneck": (ops.inverted_bottleneck, INVERTED_BOTTLENECK),
    "gated_pointwise": (ops.gated_pointwise, GATED_POINTWISE),
    "byte_hash": (ops.byte_hash, BYTE_HASH),
}


def distinct_bytes(value: Any) -> int:
    """Bytes of memory behind a tensor, or a list of them: expanded axes count once."""
    if isinstance(value, list):
        return sum(map(distinct_bytes, value))
    if not isinstance(value, Tensor):
        return 0
    extents = [extent for extent, stride in zip(value.shape, value.stride(), strict=True) if stride]
    return value.element_size() * torch.Size(extents).numel()


def moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [moved(part, device) for part in value]
    return value.to(device) if isinstance(value, Tensor) else value


def seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def forced(backend: str, function: Callable[..., Tensor], arguments: dict[str, Any]) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with ops.using(backend):
            return function(**arguments)

    return run


def measure(name: str, case: Case, dtype: torch.dtype, device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """Returns one record per backend that takes the case."""
    function, _ = OPS[name]

    def fresh() -> dict[str, Any]:
        """Sums start anew where results are compared."""
        built = case.arguments(dtype)
        return {key: moved(value, device) for key, value in built.items()}

    arguments = fresh()
    expected = forced("reference", function, fresh())()
    traffic = sum(distinct_bytes(value) for key, value in arguments.items() if key != "out") + distinct_bytes(expected)
    source = torch.zeros(traffic // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    runs: dict[str, Callable[[], object]] = {"copy": lambda: target.copy_(source)}
    deviations = {}
    for backend in ops.all_ops()[name].backends:
        try:
            deviation = (forced(backend, function, fresh())() - expected).abs().max().item()
        except ops.BackendError:
            continue
        deviations[backend] = deviation / max(expected.abs().max().item(), 1e-300)
        runs[backend] = forced(backend, function, arguments)
    samples: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(repeats):
        for key, run in runs.items():
            samples[key].append(seconds(run, device))

    copy = statistics.median(samples["copy"])
    records = []
    for backend, deviation in deviations.items():
        low, median, high = statistics.quantiles(samples[backend], n=4)
        records.append(
            {
                "op": name,
                "case": case.name,
                "dtype": str(dtype).removeprefix("torch."),
                "backend": backend,
                "median_ms": median * 1e3,
                "iqr_ms": (high - low) * 1e3,
                "gigabytes_per_second": traffic / median / 1e9,
                "times_copy": median / copy,
                "deviation": deviation,
            }
        )
    return records


def table(records: list[dict[str, Any]]) -> Table:
    result = Table(title="ops: median (IQR), interleaved; deviation from the reference relative to its maximum")
    for column in ("op", "case", "dtype", "backend"):
        result.add_column(column)
    for column in ("ms", "IQR", "GB/s", "× copy", "deviation"):
        result.add_column(column, justify="right")
    for record in records:
        result.add_row(
            *(record[key] for key in ("op", "case", "dtype", "backend")),
            f"{record['median_ms']:.3f}",
            f"{record['iqr_ms']:.3f}",
            f"{record['gigabytes_per_second']:.1f}",
            f"{record['times_copy']:.2f}",
            "equal" if record["deviation"] == 0 else f"{record['deviation']:.1e}",
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", action="append", choices=sorted(OPS), help="repeatable; default: all")
    parser.add_argument("--dtype", action="append", help="repeatable; default: float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="threads of the CPU kernels; default: torch's")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write the records, with their conditions, to this file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    records = []
    for name in options.op or OPS:
        for case in OPS[name][1]:
            for dtype in (getattr(torch, text) for text in options.dtype or ["float32"]):
                if case.workload and dtype in case.dtypes:
                    records += measure(name, case, dtype, torch.device(options.device), options.repeats)
    Console(width=150).print(table(records))
    if options.json:
        conditions = {
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if options.device == "cuda" else platform.machine(),
            "threads": torch.get_num_threads(),
            "repeats": options.repeats,
        }
        options.json.write_text(json.dumps({"conditions": conditions, "records": records}, indent=2) + "\n")


if __name__ == "__main__":
    main()
