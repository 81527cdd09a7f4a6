"""add_noise: write inputs with normal noise straight into a batch, each element's noise a function of its address."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from xai_fast.ops import _checks
from xai_fast.ops._dispatch import Op, lazily, no_triton, not_on_cpu, not_on_cuda
from xai_fast.ops._library import compiled, no_library
from xai_fast.ops._philox import BLOCKS_OF_NOISE
from xai_fast.ops._traced import traced


def rows_too_long(
    _inputs: Tensor, _scale: Tensor, _sample: Tensor, _key: Tensor, _draw: Tensor, _seed: int, out: Tensor
) -> str | None:
    """Refuses rows whose elements a kernel cannot count with 32 bits."""
    return "a row has 2^30 elements or more" if out.shape[1:].numel() >= 2**30 else None


op = Op("add_noise", lazily(f"{__name__}.reference", "add_noise"))
op.offer("cpp", compiled("add_noise"), unless=(no_library, not_on_cpu))
op.offer("triton", lazily(f"{__name__}.triton", "add_noise"), unless=(no_triton, not_on_cuda, rows_too_long))


@traced(
    "(Tensor inputs, Tensor scale, Tensor sample, Tensor key, Tensor draw, int seed, Tensor(a!) out) -> ()",
    words=("seed",),
)
def add_noise(
    inputs: Tensor, scale: Tensor, sample: Tensor, key: Tensor, draw: Tensor, seed: int, out: Tensor
) -> Tensor:
    """Fills row m of `out` with `inputs[sample[m]] + scale[m] * n(seed, key[m], draw[m])`, n standard normal.

    The noise of an element depends on the seed, the row's key and draw, and the element's number within (C, *S) in
    logical order: on no other row, no memory layout, no device. Element e has word e mod 4 of block e // 4 of
    `xai_fast.ops._philox.words`, and the numbers of a block are, by Box and Muller,

        r(w0) cos(a(w1)), r(w0) sin(a(w1)), r(w2) cos(a(w3)), r(w2) sin(a(w3))
        with r(w) = sqrt(-2 log((w | 1) / 2^32)), at most 6.7, and a(w) = 2 pi w / 2^32.

    Everything is computed in float64 where `inputs` are, else in float32, from the same words: in float32 the
    normal numbers are right to 4 units of 2^-23, relative to the larger of 1 and their size.

    Args:
        inputs: (N, C, *S), one to three spatial axes, at most 2^33 elements each, float16, bfloat16, float32 or
            float64, any strides.
        scale: float64 (M,): the noise's standard deviation; a negative one mirrors it.
        sample: LongTensor (M,) with values in [0, N): which input each row is a variant of.
        key: LongTensor (M,), any integers: the id of that sample.
        draw: LongTensor (M,) with values in [0, 2^32).
        seed: in [0, 2^64).
        out: (M, C, *S), any of the dtypes above and any memory layout whose elements do not overlap, sharing no
            memory with the others. Conversion rounds to nearest even. Gradients do not pass.

    `inputs` and `out` are on one device; what has one value per row there or on the CPU. The values of `sample` and
    `draw` are checked on the CPU only: on another device the caller vouches for them. Rows of equal key and draw
    share the work of drawing on the CPU.

    Returns:
        `out`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, a device or a value does not fit.
    """
    _check(inputs, scale, sample, key, draw, out)
    _check_numbers(draw, seed)
    scale, sample, key, draw = (value.to(out.device).contiguous() for value in (scale, sample, key, draw))
    op(inputs, scale, sample, key, draw, seed, out)
    increment_version(out)  # kernels write behind autograd's back: a graph that saved `out` must notice
    return out


def _check(inputs: Tensor, scale: Tensor, sample: Tensor, key: Tensor, draw: Tensor, out: Tensor) -> None:
    _checks.check_axes("inputs", inputs)
    _checks.check_dtype("inputs", inputs, _checks.FLOATING)
    _checks.check_dtype("out", out, _checks.FLOATING)
    _checks.check_device("inputs", inputs, out.device, "out")
    rows = out.shape[0] if out.dim() else 0
    _checks.check_shape("out", out, (rows, *inputs.shape[1:]), "(M, C, *S)")
    per_row = {"scale": scale, "sample": sample, "key": key, "draw": draw}
    for name, values in per_row.items():
        _checks.check_dtype(name, values, (torch.float64 if name == "scale" else torch.int64,))
        _checks.check_shape(name, values, (rows,), "(M,)")
        if not values.is_cpu:
            _checks.check_device(name, values, out.device, "out")
    _checks.check_indices("sample", sample, inputs.shape[0], "inputs")
    if inputs.shape[1:].numel() > 4 * BLOCKS_OF_NOISE:
        raise ValueError(f"`inputs` has rows of shape {tuple(inputs.shape[1:])}; noise is defined up to 2^33 elements")


def _check_numbers(draw: Tensor, seed: int) -> None:
    if not isinstance(seed, int):
        raise TypeError(f"`seed` is a {type(seed).__name__}; it takes an int")
    if not 0 <= seed < 2**64:
        raise ValueError(f"`seed` is {seed}; it takes one from 0 to 2^64 - 1")
    if draw.is_cpu and draw.numel() and not 0 <= int(draw.min()) <= int(draw.max()) < 2**32:
        raise ValueError(
            f"`draw` has values from {int(draw.min())} to {int(draw.max())}; it takes numbers from 0 to 2^32 - 1"
        )
