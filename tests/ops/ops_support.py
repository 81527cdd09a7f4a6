"""What the tests of the ops share: every op with its cases, and calls on a chosen backend."""

from __future__ import annotations

import os
from contextlib import contextmanager

import torch
from torch import Tensor

from xai_fast import ops
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


def moments(**arguments):
    """Adds to copies of the sums and returns them as one tensor, as the other ops return what they wrote."""
    sums = {name: arguments[name] for name in ("total", "squares") if arguments[name] is not None}
    sums = {name: given.clone() for name, given in sums.items()}
    ops.moments(**{**arguments, **sums})
    return torch.stack(list(sums.values()))


def surrogate_normal(**arguments):
    """Adds to copies of the sums and returns them as one tensor."""
    sums = {name: arguments[name].clone() for name in ("gram", "moment")}
    return torch.cat(ops.surrogate_normal(**{**arguments, **sums}), dim=1)


def grid_reduce(**arguments):
    """Adds to a copy of the bins."""
    return ops.grid_reduce(**{**arguments, "bins": arguments["bins"].clone()})


FUNCTIONS = {
    "hide_windows": ops.hide_windows,
    "hide_segments": ops.hide_segments,
    "grid_masks": ops.grid_masks,
    "grid_reduce": grid_reduce,
    "window_mean": ops.window_mean,
    "cam_reduce": ops.cam_reduce,
    "region_gather": ops.region_gather,
    "add_noise": ops.add_noise,
    "path_points": ops.path_points,
    "blend_maps": ops.blend_maps,
    "moments": moments,
    "surrogate_normal": surrogate_normal,
    "relu_change": ops.relu_change,
    "bias_relu": ops.bias_relu,
    "sign_bits": ops.sign_bits,
    "pass_bits": ops.pass_bits,
    "winograd_convolution": ops.winograd_convolution,
    "inverted_bottleneck": ops.inverted_bottleneck,
    "gated_pointwise": ops.gated_pointwise,
    "byte_hash": ops.byte_hash,
}
CASES = {
    "hide_windows": HIDE_WINDOWS,
    "hide_segments": HIDE_SEGMENTS,
    "grid_masks": GRID_MASKS,
    "grid_reduce": GRID_REDUCE,
    "window_mean": WINDOW_MEAN,
    "cam_reduce": CAM_REDUCE,
    "region_gather": REGION_GATHER,
    "add_noise": ADD_NOISE,
    "path_points": PATH_POINTS,
    "blend_maps": BLEND_MAPS,
    "moments": MOMENTS,
    "surrogate_normal": SURROGATE_NORMAL,
    "relu_change": RELU_CHANGE,
    "bias_relu": BIAS_RELU,
    "sign_bits": SIGN_BITS,
    "pass_bits": PASS_BITS,
    "winograd_convolution": WINOGRAD_CONVOLUTION,
    "inverted_bottleneck": INVERTED_BOTTLENECK,
    "gated_pointwise": GATED_POINTWISE,
    "byte_hash": BYTE_HASH,
}
BACKENDS = ("cpp", "triton", "cuda")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


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


def device_of(backend):
    """Where a backend runs here: kernels for GPUs on one, but where Triton's are interpreted."""
    on_gpu = backend in ("triton", "cuda") and torch.cuda.is_available() and not INTERPRETED
    return torch.device("cuda" if on_gpu else "cpu")


def placed(value, device):
    """A tensor on a device, or a list of them, with the strides that it has: expanded axes stay so."""
    if isinstance(value, list):
        return [placed(part, device) for part in value]
    if not isinstance(value, Tensor) or value.device == torch.device(device):
        return value
    once = value[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in value.stride())]
    made = torch.empty_strided(once.shape, once.stride(), dtype=value.dtype, device=device)
    return made.copy_(once).expand(value.shape)


def run(backend, name, arguments):
    """Calls one op on one backend; what it writes starts as NaN, in the memory layout that the case asks for.

    Arguments are moved to where the backend runs, and the result back.
    """
    device = device_of(backend)
    if device.type != "cpu":
        arguments = {key: placed(value, device) for key, value in arguments.items()}
    if "out" in arguments:
        out = arguments["out"]
        fresh = torch.empty_strided(out.shape, out.stride(), dtype=out.dtype, device=device).fill_(torch.nan)
        arguments = {**arguments, "out": fresh}
    with ops.using(backend), poisoned_memory():
        return placed(FUNCTIONS[name](**arguments), "cpu")


def largest(*values):
    return max((value.abs().max().item() for value in values if value is not None and value.numel()), default=0.0)


def precision(arguments, dtype):
    """The larger unit of rounding of what is computed in and what is written."""
    computed = torch.float64 if arguments["inputs"].dtype == torch.float64 else torch.float32
    return max(torch.finfo(computed).eps, torch.finfo(dtype).eps)


def add_noise_tolerance(arguments, dtype):
    """Normal numbers may be off by 4 units, and none of those drawn here is above 5."""
    scale = 5 * largest(arguments["scale"])
    computed = torch.finfo(torch.float64 if arguments["inputs"].dtype == torch.float64 else torch.float32).eps
    return 4 * computed * scale + precision(arguments, dtype) * (largest(arguments["inputs"]) + scale)


def grid_masks_tolerance(arguments, dtype):
    """Each of up to three interpolations of numbers up to 1 may be rounded three times."""
    return 10 * precision(arguments, dtype) * largest(arguments["inputs"], arguments["baseline"])


def path_points_tolerance(arguments, dtype):
    return 2 * precision(arguments, dtype) * largest(arguments["inputs"], arguments["baseline"])


def blend_maps_tolerance(arguments, dtype):
    """A map below 1 is interpolated twice; torch rounds where a resized element reads."""
    extent = max(arguments["maps"].shape[1:])
    return (8 + extent) * precision(arguments, dtype) * largest(arguments["inputs"])


def moments_tolerance(arguments, dtype):
    """Sums of products may be rounded once or twice per row."""
    values = largest(arguments["values"])
    added = len(arguments["values"]) * max(largest(arguments["weight"]), 1.0) * max(values, values**2)
    return (1 + len(arguments["values"])) * torch.finfo(dtype).eps * (added + largest(arguments["total"]))


def surrogate_normal_tolerance(arguments, dtype):
    """As of `moments`; what is added is a weight, or a weight times a score."""
    added = len(arguments["keep"]) * largest(arguments["weights"]) * max(1.0, largest(arguments["scores"]))
    given = largest(arguments["gram"], arguments["moment"])
    return (1 + len(arguments["keep"])) * torch.finfo(dtype).eps * (added + given)


def winograd_tolerance(arguments, dtype):
    """Sixteen sums over channels, of which one result adds up nine, each of four transformed values."""
    channels = arguments["inputs"].shape[1]
    size = largest(arguments["inputs"]) * largest(arguments["kernels"]) * channels**0.5
    return 8 * torch.finfo(dtype).eps * (size + largest(arguments["bias"], arguments["other"]))


def bottleneck_tolerance(arguments, dtype):
    """Three sums one behind the other, each over products of values no larger than those before it let them become."""
    inputs, expand, depth, project = (arguments[key] for key in ("inputs", "expand", "depth", "project"))
    size = largest(inputs) * (1 if expand is None else largest(expand) * inputs.shape[1] ** 0.5)
    size += largest(arguments["expand_bias"])
    size = size * largest(depth) * depth.shape[1] ** 0.5 + largest(arguments["depth_bias"])
    if project is not None:
        size = size * largest(project) * len(arguments["depth_bias"]) ** 0.5 + largest(arguments["project_bias"])
    return 4 * torch.finfo(dtype).eps * (size + largest(arguments["other"]))


def gated_tolerance(arguments, dtype):
    """A sum over channels of rounded products."""
    size = largest(arguments["inputs"]) * largest(arguments["project"]) * arguments["inputs"].shape[1] ** 0.5
    return 4 * torch.finfo(dtype).eps * (size + largest(arguments["project_bias"]) + largest(arguments["other"]))


ARITHMETIC = {
    "add_noise": add_noise_tolerance,
    "grid_masks": grid_masks_tolerance,
    "path_points": path_points_tolerance,
    "blend_maps": blend_maps_tolerance,
    "moments": moments_tolerance,
    "surrogate_normal": surrogate_normal_tolerance,
    "winograd_convolution": winograd_tolerance,
    "inverted_bottleneck": bottleneck_tolerance,
    "gated_pointwise": gated_tolerance,
}


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
    if name in ARITHMETIC:
        return ARITHMETIC[name](arguments, dtype)
    if (
        name in ("hide_windows", "hide_segments")
        and backend == "triton"
        and dtype == torch.bfloat16
        and not torch.cuda.is_available()
    ):
        return 0.04  # Triton's interpreter truncates to bfloat16 where the hardware rounds; values are below 5
    if name == "bias_relu" and backend == "triton" and dtype == torch.bfloat16 and not torch.cuda.is_available():
        return 0.0625  # as above; sums of three are below 16
    return 0.0


def assert_agree(actual, expected, atol):
    assert actual.stride() == expected.stride()
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=atol, equal_nan=True)
