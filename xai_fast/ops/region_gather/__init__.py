"""region_gather: cut a region out of each variant of a map, which differs from the kept map inside a patch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from xai_fast.ops import _checks
from xai_fast.ops._dispatch import Op, lazily, no_triton, not_on_cpu, not_on_cuda
from xai_fast.ops._library import compiled, launched, no_cuda, no_library, not_for_device
from xai_fast.ops._traced import traced

BORDERS = ("constant", "replicate", "reflect", "circular")


def rows_too_long(
    _base: Tensor,
    _patch: Tensor | None,
    _patch_at: Tensor | None,
    _sample: Tensor,
    _at: Tensor,
    out: Tensor,
    *_: object,
) -> str | None:
    """Refuses rows whose elements a kernel cannot count with 32 bits."""
    return "a row has 2^30 elements or more" if out.shape[1:].numel() >= 2**30 else None


op = Op("region_gather", lazily(f"{__name__}.reference", "region_gather"))
op.offer("cpp", compiled("region_gather"), unless=(no_library, not_on_cpu))
op.offer("cuda", launched("region_gather"), unless=(no_cuda, not_for_device))
op.offer("triton", lazily(f"{__name__}.triton", "region_gather"), unless=(no_triton, not_on_cuda, rows_too_long))


@traced(
    "(Tensor base, Tensor? patch, Tensor? patch_at, Tensor sample, Tensor at, Tensor(a!) out, "
    'str border="constant", float fill=0.0) -> ()'
)
def region_gather(
    base: Tensor,
    patch: Tensor | None,
    patch_at: Tensor | None,
    sample: Tensor,
    at: Tensor,
    out: Tensor,
    border: str = "constant",
    fill: float = 0.0,
) -> Tensor:
    """Fills row m of `out` with the region at `at[m]` of `base[sample[m]]`, with `patch[m]` pasted into that.

    Element i of row m has the position p = at[m] + i and is that of `patch[m]` at p - patch_at[m] where there is
    one, else that of `base[sample[m]]` at p. A position outside the map reads what `border` says: `fill`, or the
    place inside the map that it is moved to, which may lie in the patch.

    Args:
        base: (N, C, *S), one to three spatial axes, float16, bfloat16, float32 or float64, any strides: the maps
            as they were kept.
        patch: (M, C, *P), of the dtype of `base`, any strides: what row m has in place of `base`; or None.
        patch_at: LongTensor (M, len(S)), the position of each patch's first element, any integers: what hangs
            over the edge of the map is never read. None exactly where `patch` is.
        sample: LongTensor (M,) with values in [0, N): which map each row is a variant of.
        at: LongTensor (M, len(S)), the position of each region's first element, any integers.
        out: (M, C, *R), of the dtype of `base`, any memory layout whose elements do not overlap, sharing no
            memory with the others. Gradients do not pass.
        border: "constant", "replicate" (the nearest place), "reflect" (about the outermost elements, which are
            not repeated, over any distance) or "circular".
        fill: what "constant" reads, rounded to the dtype of `base`; may be infinite.

    `base`, `patch` and `out` are on one device; `patch_at`, `sample` and `at` there or on the CPU. The values of
    `sample` are checked on the CPU only: on another device the caller vouches for them.

    Returns:
        `out`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, a device or a value does not fit, or only one of `patch` and `patch_at` is None.
    """
    _check(base, patch, patch_at, sample, at, out, border)
    if not out.is_cpu:
        sample, at = sample.to(out.device), at.to(out.device)
        patch_at = None if patch_at is None else patch_at.to(out.device)
    if patch_at is not None:
        patch_at = patch_at.contiguous()
    op(base, patch, patch_at, sample.contiguous(), at.contiguous(), out, border, float(fill))
    increment_version(out)  # kernels write behind autograd's back: a graph that saved `out` must notice
    return out


def _check(
    base: Tensor,
    patch: Tensor | None,
    patch_at: Tensor | None,
    sample: Tensor,
    at: Tensor,
    out: Tensor,
    border: str,
) -> None:
    _checks.check_axes("base", base)
    _checks.check_dtype("base", base, _checks.FLOATING)
    dtype, device, extents = base.dtype, out.device, base.shape
    axes = len(extents) - 2
    rows = out.shape[0] if out.dim() else 0
    _check_map("out", out, (rows, extents[1], axes), dtype)
    _checks.check_device("base", base, device, "out")
    _check_numbers("sample", sample, (rows,), "(M,)", device)
    _check_numbers("at", at, (rows, axes), "(M, len(S))", device)
    if patch is not None and patch_at is not None:
        _check_map("patch", patch, (rows, extents[1], axes), dtype)
        _checks.check_device("patch", patch, device, "out")
        _check_numbers("patch_at", patch_at, (rows, axes), "(M, len(S))", device)
    elif patch is not None or patch_at is not None:
        given, missing = ("patch", "patch_at") if patch_at is None else ("patch_at", "patch")
        raise ValueError(f"`{missing}` is None but `{given}` is not; give both or neither")
    _checks.check_indices("sample", sample, extents[0], "base")
    if border != "constant":
        _check_border(border, extents)


# Asked thousands of times a second: a check that holds costs one comparison and no call.
def _check_map(name: str, value: Tensor, fits: tuple[int, int, int], dtype: torch.dtype) -> None:
    if value.dtype != dtype:
        _checks.check_dtype(name, value, (dtype,))
    shape, (rows, channels, axes) = value.shape, fits
    if len(shape) != axes + 2 or shape[0] != rows or shape[1] != channels:
        raise ValueError(
            f"`{name}` has shape {tuple(shape)}; it takes (M, C, ...) with M = {rows}, the rows of `out`, "
            f"C = {channels} and {axes} spatial axes, those of `base`"
        )


def _check_numbers(name: str, value: Tensor, shape: tuple[int, ...], meaning: str, device: torch.device) -> None:
    if value.dtype != torch.int64 or value.layout is not torch.strided:
        _checks.check_dtype(name, value, (torch.int64,))
    if value.shape != shape:
        _checks.check_shape(name, value, shape, meaning)
    if not value.is_cpu:
        _checks.check_device(name, value, device, "out")


def _check_border(border: str, extents: Sequence[int]) -> None:
    if border not in BORDERS:
        raise ValueError(f"`border` is {border!r}; it takes one of {', '.join(BORDERS)}")
    if 0 in extents[2:]:
        raise ValueError(f"`base` has the empty extents {tuple(extents[2:])}; only `border` 'constant' fits them")
