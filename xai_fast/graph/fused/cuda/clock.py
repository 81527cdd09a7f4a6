"""How long something takes on a GPU, and what the user has asked of its kernels."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

_RUNS = 8  # behind each other, so that launching and computing overlap as they do in a sweep


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Of one warm call among several; the least of two measurements."""
    call()
    times = []
    for _ in range(2):
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        for _ in range(_RUNS):
            call()
        torch.cuda.synchronize(device)
        times.append((time.perf_counter() - began) / _RUNS)
    return min(times)


def flags() -> tuple[object, ...]:
    """The user's flags that decide which kernels run: what was found out, or recorded, under others does not hold.

    Precisions are asked by their new names: the old ones raise where somebody has set the new.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return (
        cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        matmul.fp32_precision,
        matmul.allow_fp16_reduced_precision_reduction,
        matmul.allow_bf16_reduced_precision_reduction,
        cudnn.enabled,
        cudnn.benchmark,
        cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
        torch._C._get_flash_sdp_enabled(),
        torch._C._get_mem_efficient_sdp_enabled(),
        torch._C._get_cudnn_sdp_enabled(),
        torch._C._get_math_sdp_enabled(),
    )
