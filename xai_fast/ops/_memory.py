"""What kernels may read and write through bare pointers: lazy tensors are resolved, shared memory copied or refused.

A tensor may stand for other numbers than those that lie in its memory: negated or conjugated ones, or zeros without
any memory. Kernels see only an address, extents and strides, so here is the one place where that is put right.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor


def settled(
    args: Sequence[Any], names: Sequence[str], writes: Collection[str], in_place: Collection[str]
) -> tuple[list[Any], list[tuple[Tensor, Tensor]]]:
    """The arguments with plain memory, and pairs (given, written) of which the second is to be copied to the first.

    Args:
        args: of a kernel.
        names: theirs.
        writes: names of those that the kernel writes.
        in_place: names of those that may be the very tensor that is written.

    Raises:
        TypeError: a tensor has no strided memory.
        ValueError: a tensor that is written needs a gradient, has no memory of its own for every element, or shares
            some with another that is written.
    """
    found, through, targets = list(args), [], []
    for position, value in enumerate(args):
        if not isinstance(value, Tensor):
            continue
        if value.layout is not torch.strided or not (value.is_cpu or value.is_cuda):
            check_strided(names[position], value)
        if names[position] in writes:
            targets.append(position)
            _check_written(names[position], value)
            if value.is_neg():
                found[position] = value.resolve_neg()
                through.append((value, found[position]))
        else:
            found[position] = resolved(value)
    for target in targets:
        _keep_apart(found, target, names, writes, in_place)
    return found, through


def resolved(value: Tensor) -> Tensor:
    """The numbers that `value` stands for, in memory of this device: itself, where they are there."""
    return value.clone() if value.is_neg() or value._is_zerotensor() else value


def check_strided(name: str, value: Tensor) -> None:
    """Raises TypeError unless the elements of `value` lie in memory, each at a place that strides tell."""
    if value.layout is not torch.strided or value.is_quantized or value.device.type == "meta":
        kind = "on meta" if value.is_meta else "quantised" if value.is_quantized else str(value.layout)
        raise TypeError(
            f"`{name}` is a tensor without plain memory ({kind.removeprefix('torch.')}); it takes a dense one with "
            "values: convert it with `.to_dense()` or `.dequantize()`"
        )


def _check_written(name: str, value: Tensor) -> None:
    if value.requires_grad:
        raise ValueError(f"`{name}` requires a gradient, which does not pass; write into `{name}.detach()`")
    if value._is_zerotensor():
        raise ValueError(f"`{name}` has no memory (it stands for zeros); it takes a tensor with memory of its own")
    if not value.is_contiguous() and _overlaps_itself(value):
        raise ValueError(
            f"`{name}` is an expanded or overlapping view, of strides {value.stride()}, whose elements share memory; "
            "it takes a tensor with memory of its own"
        )


def _overlaps_itself(value: Tensor) -> bool:
    """Whether two elements may lie at one place: a row along an axis reaches over the next along a wider one."""
    axes = sorted((stride, extent) for stride, extent in zip(value.stride(), value.shape, strict=True) if extent > 1)
    reach = 0
    for stride, extent in axes:
        if stride <= reach:
            return value.numel() > 0
        reach += stride * (extent - 1)
    return False


def _keep_apart(
    args: list[Any], target: int, names: Sequence[str], writes: Collection[str], in_place: Collection[str]
) -> None:
    """Copies what is read where it shares memory with what is written: rows run at once and in any order."""
    written = args[target]
    start, stop = _block(written)
    for position, value in enumerate(args):
        if position == target or not isinstance(value, Tensor):
            continue
        first, last = _block(value)
        if first >= stop or start >= last or not _share(value, written):
            continue
        name = names[position]
        if name in writes:
            raise ValueError(f"`{name}` shares memory with `{names[target]}`; each takes memory of its own")
        if not (value is written and name in in_place):
            args[position] = value.clone()


def _block(value: Tensor) -> tuple[int, int]:
    """From the first byte of the memory that a tensor is a view of to behind the last."""
    storage = value.untyped_storage()
    start = storage.data_ptr()
    return start, start + storage.nbytes()


def _share(value: Tensor, other: Tensor) -> bool:
    """Whether the stretches of memory from the first element to the last meet."""
    if not (value.numel() and other.numel()):
        return False
    (start, stop), (first, last) = _span(value), _span(other)
    return first < stop and start < last


def _span(value: Tensor) -> tuple[int, int]:
    start = value.data_ptr()
    reach = sum(stride * (extent - 1) for stride, extent in zip(value.stride(), value.shape, strict=True))
    return start, start + (reach + 1) * value.element_size()
