"""`torch.set_default_device` is for the caller's code: what we make without naming a device is on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

_PACKAGE = __name__.partition(".")[0]
# Steps of a captured forward are the caller's code, though it is we who call them.
_CALLERS = f"{_PACKAGE}.graph.steps"


@contextmanager
def own_on_cpu() -> Iterator[None]:
    """Inside, functions of this package make tensors on the CPU, and the caller's where they would be outside."""
    if not torch._C._len_torch_function_stack():  # a default device is a mode on it
        yield
        return
    with _OwnOnCpu():
        yield


class _OwnOnCpu(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _device_constructors() and kwargs.get("device") is None and _is_ours(sys._getframe(1)):
            given = args[0] if args else None
            kwargs = {**kwargs, "device": given.device if isinstance(given, Tensor) else "cpu"}
        return func(*args, **kwargs)


def _is_ours(frame: Any) -> bool:
    """Whether this package asked for it, itself or through torch; our modes pass on what others ask for."""
    name = "torch."
    while frame is not None and name.startswith("torch."):
        passes_on = frame.f_code.co_name == "__torch_function__"
        name, frame = "torch." if passes_on else frame.f_globals.get("__name__", ""), frame.f_back
    return name.startswith(f"{_PACKAGE}.") and name != _CALLERS
