"""Which precision is fast on a device."""

from __future__ import annotations

import functools
import time

import torch
from torch import Tensor

from xai_fast.graph.processor import said
from xai_fast.graph.timed import decided

_HALF_GAIN = 0.8  # of the time in single precision; carrying differences costs additions


def halves_pay(device: torch.device, half: torch.dtype) -> bool:
    """Whether convolutions in half precision are faster here; without instructions for it they are emulated."""
    if said().halves is not None:
        return bool(said().halves)
    case = f"{device.type}, {half}"
    return decided("half precision", case, lambda: _faster(device, half), lambda: device.type == "cuda")


@functools.cache
@torch.no_grad()
def _faster(device: torch.device, half: torch.dtype) -> bool:
    """The same, timed."""
    seconds = {}
    for dtype in (torch.float32, half):
        x = torch.ones(16, 64, 14, 14, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
        weight = torch.ones(64, 64, 3, 3, dtype=dtype, device=device)
        times = []
        for _ in range(4):
            wait(x)
            began = time.perf_counter()
            torch.nn.functional.conv2d(x, weight)
            wait(x)
            times.append(time.perf_counter() - began)
        seconds[dtype] = min(times)
    return seconds[half] < _HALF_GAIN * seconds[torch.float32]


def wait(tensor: Tensor) -> None:
    """Returns once everything asked of the tensor's device is done."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
