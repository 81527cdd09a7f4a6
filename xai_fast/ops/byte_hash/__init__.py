"""byte_hash: 64 bits per tensor that tell whether any byte of its memory has changed."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from xai_fast.ops._dispatch import Op, lazily, no_triton, not_on_cpu, not_on_cuda
from xai_fast.ops._library import compiled, no_library, older_than
from xai_fast.ops._traced import traced


def _by_address() -> Callable[..., Any]:
    kernel = compiled("byte_hash")()

    def run(tensors: Sequence[Tensor], out: Tensor) -> None:
        spans = array("q", [number for tensor in tensors for number in (tensor.data_ptr(), tensor.nbytes)])
        kernel(torch.frombuffer(spans, dtype=torch.int64), out)

    return run


op = Op("byte_hash", lazily(f"{__name__}.reference", "byte_hash"), writes=("out",))
op.offer("cpp", _by_address, unless=(no_library, older_than("byte_hash"), not_on_cpu))
op.offer("triton", lazily(f"{__name__}.triton", "byte_hash"), unless=(no_triton, not_on_cuda))


def _like_result(tensors: Sequence[Tensor]) -> Tensor:
    device = tensors[0].device if tensors else torch.device("cpu")
    return torch.empty(len(tensors), dtype=torch.int64, device=device)


@traced("(Tensor[] tensors) -> Tensor", fake=_like_result)
@torch.no_grad()
def byte_hash(tensors: Sequence[Tensor]) -> Tensor:
    """A hash of the bytes of each tensor, in the order in which they lie in memory.

    Different contents of one length have equal hashes by chance alone (1 in 2^64), and never where they differ within
    eight aligned bytes only: a single changed weight always shows. Nothing is said about shape, dtype or strides.

    Args:
        tensors: T tensors on one device, of any dtype that fills whole bytes, each of which fills its memory without
            gaps or overlap, its axes in any order.

    Returns:
        LongTensor (T,) on that device, the same on every backend and with any number of threads. A tensor whose memory
        was given back counts as empty.

    Raises:
        ValueError: a tensor is not dense, or they are on several devices.
    """
    device = tensors[0].device if tensors else torch.device("cpu")
    for tensor in tensors:
        if tensor.device != device:
            raise ValueError(f"`tensors` are on {device} and {tensor.device}; hash those of each device by themselves")
        if not tensor.is_contiguous() and not is_dense(tensor):
            raise ValueError(
                f"`tensors` has one of shape {tuple(tensor.shape)} and strides {tensor.stride()}; it takes memory "
                "without gaps or overlap; copy it with `.contiguous()`"
            )
    # What only a flag negates or conjugates has other bytes in memory than it says.
    return hash_dense([tensor.resolve_conj().resolve_neg() for tensor in tensors])


def hash_dense(tensors: Sequence[Tensor]) -> Tensor:
    """As `byte_hash`, for tensors that were seen to fit: checking many small ones costs more than hashing them."""
    if not tensors:
        return torch.empty(0, dtype=torch.int64)
    out = torch.empty(len(tensors), dtype=torch.int64, device=tensors[0].device)
    op(tensors, out)
    return out


def hash_memory(spans: array[int]) -> Tensor:
    """Hashes of memory in use by this process, (n,) of n addresses and lengths by turns; by compiled kernels alone."""
    out = torch.empty(len(spans) // 2, dtype=torch.int64)
    if len(out):
        compiled("byte_hash")()(torch.frombuffer(spans, dtype=torch.int64), out)
    return out


def is_dense(tensor: Tensor) -> bool:
    """Whether a strided tensor fills its memory without gaps or overlap, its axes in any order."""
    if tensor.layout is not torch.strided:
        return False
    expected = 1
    for stride, extent in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if extent == 1:
            continue
        if stride != expected:
            return tensor.numel() == 0
        expected *= extent
    return True
