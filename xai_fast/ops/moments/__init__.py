"""moments: add rows, and their squares, to running sums per group."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from xai_fast.ops import _checks
from xai_fast.ops._dispatch import Op, lazily, no_triton, not_on_cpu, not_on_cuda
from xai_fast.ops._library import compiled, no_library
from xai_fast.ops._traced import traced


def rows_too_long(values: Tensor, *_: object) -> str | None:
    """Refuses rows whose elements a kernel cannot count with 32 bits."""
    return "a row has 2^30 elements or more" if values.shape[1:].numel() >= 2**30 else None


op = Op("moments", lazily(f"{__name__}.reference", "moments"), writes=("total", "squares"))
op.offer("cpp", compiled("moments"), unless=(no_library, not_on_cpu))
op.offer("triton", lazily(f"{__name__}.triton", "moments"), unless=(no_triton, not_on_cuda, rows_too_long))


@traced("(Tensor values, Tensor? weight, Tensor group, Tensor(a!)? total, Tensor(b!)? squares) -> ()", returns=())
def moments(values: Tensor, weight: Tensor | None, group: Tensor, total: Tensor | None, squares: Tensor | None) -> None:
    """Adds `weight[m] * values[m]` to `total[group[m]]` and `weight[m] * values[m]**2` to `squares[group[m]]`.

    In float64, in the order of the rows whatever the number of threads: however many rows a call brings, the sums
    are the same to the last bit.

    Args:
        values: (M, *E) with at most five axes E, float16, bfloat16, float32 or float64, any strides.
        weight: float64 (M,), or None where every row counts once.
        group: LongTensor (M,) with values in [0, G): the sum that each row belongs to.
        total: (G, *E) float64, contiguous, or None where it is not asked for.
        squares: the same for the squares. The two share no memory with each other and none with `values`.

    `values`, `total` and `squares` are on one device; `weight` and `group` there or on the CPU. The values of `group`
    are checked on the CPU only: on another device the caller vouches for them. Gradients do not pass.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, a device, a memory layout or a value does not fit, or there is no sum to add to.
    """
    sums = {name: given for name, given in (("total", total), ("squares", squares)) if given is not None}
    _check(values, weight, group, sums)
    weight = None if weight is None else weight.to(values.device).contiguous()
    op(values, weight, group.to(values.device).contiguous(), total, squares)
    increment_version(list(sums.values()))  # kernels write behind autograd's back: a graph that saved a sum must notice


def _check(values: Tensor, weight: Tensor | None, group: Tensor, sums: dict[str, Tensor]) -> None:
    _checks.check_dtype("values", values, _checks.FLOATING)
    if not 1 <= values.dim() <= 6:
        raise ValueError(f"`values` has shape {tuple(values.shape)}; it takes (M, *E) with at most five axes E")
    if not sums:
        raise ValueError("`total` and `squares` are both None; give at least one of them")
    groups = next(iter(sums.values())).shape[:1].numel()
    for name, given in sums.items():
        _checks.check_dtype(name, given, (torch.float64,))
        _checks.check_device(name, given, values.device, "values")
        _checks.check_shape(name, given, (groups, *values.shape[1:]), "(G, *E)")
        if not given.is_contiguous():
            raise ValueError(f"`{name}` has strides {given.stride()}; it takes a contiguous tensor")
    _check_per_row("group", group, torch.int64, values)
    _checks.check_indices("group", group, groups, next(iter(sums)))
    if weight is not None:
        _check_per_row("weight", weight, torch.float64, values)


def _check_per_row(name: str, given: Tensor, dtype: torch.dtype, values: Tensor) -> None:
    _checks.check_dtype(name, given, (dtype,))
    _checks.check_shape(name, given, (values.shape[0],), "(M,)")
    if not given.is_cpu:
        _checks.check_device(name, given, values.device, "values")
