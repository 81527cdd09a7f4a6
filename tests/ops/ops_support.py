"""What the tests of the ops share: every op with its cases, and calls on a chosen backend."""

from __future__ import annotations

from contextlib import contextmanager

import torch

from xai_fast import ops
from xai_fast.ops.cam_reduce.cases import CASES as CAM_REDUCE
from xai_fast.ops.hide_windows.cases import CASES as HIDE_WINDOWS
from xai_fast.ops.region_gather.cases import CASES as REGION_GATHER
from xai_fast.ops.window_mean.cases import CASES as WINDOW_MEAN

FUNCTIONS = {
    "hide_windows": ops.hide_windows,
    "window_mean": ops.window_mean,
    "cam_reduce": ops.cam_reduce,
    "region_gather": ops.region_gather,
}
CASES = {
    "hide_windows": HIDE_WINDOWS,
    "window_mean": WINDOW_MEAN,
    "cam_reduce": CAM_REDUCE,
    "region_gather": REGION_GATHER,
}
BACKENDS = ("cpp", "triton")


def label(value):
    return getattr(value, "name", None) or str(value).removeprefix("torch.")


@contextmanager
def poisoned_memory():
    """New tensors start as NaN, so that an element nobody wrote shows."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def run(backend, name, arguments):
    """Calls one op on one backend; what it writes starts as NaN, in the memory layout that the case asks for."""
    if "out" in arguments:
        out = arguments["out"]
        fresh = torch.empty_strided(out.shape, out.stride(), dtype=out.dtype).fill_(torch.nan)
        arguments = {**arguments, "out": fresh}
    with ops.using(backend), poisoned_memory():
        return FUNCTIONS[name](**arguments)


def tolerance(name, arguments, dtype, backend="cpp"):
    """How far a result may be from the reference's, absolutely; what only copies, not at all."""
    if name == "window_mean":
        values = arguments["values"]
        finite = values[values.isfinite()].abs()
        return 4 * torch.finfo(dtype).eps * (finite.max().item() if finite.numel() else 0.0)
    if name == "cam_reduce" and arguments["activations"].numel() and arguments["weights"].numel():
        size = [arguments[key].to(torch.float64).abs() for key in ("weights", "activations")]
        scale = torch.einsum("nkc,nc...->nk...", *size).max().item()
        extent = max(arguments["activations"].shape[2:])  # torch rounds where a resized element reads
        return (4 + extent) * torch.finfo(dtype).eps * scale
    if name == "hide_windows" and backend == "triton" and dtype == torch.bfloat16 and not torch.cuda.is_available():
        return 0.04  # Triton's interpreter truncates to bfloat16 where the hardware rounds; values are below 5
    return 0.0


def assert_agree(actual, expected, atol):
    assert actual.stride() == expected.stride()
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=atol, equal_nan=True)
