"""What a forward of ours runs and writes to: seen as it happens, so that it never writes to weights of the caller's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .uncompiled import never_compiled


class WritesWeightsError(BaseException):
    """A forward was about to write into the caller's weights.

    No `Exception`, so that no handler of the user's forward takes it for one of its own; whoever borrows catches it.
    """


@contextmanager
def read_only(module: nn.Module) -> Iterator[None]:
    """Whatever would write into the parameters of `module` raises, before it has written.

    Some forwards do: an embedding renormalises rows, a layer clamps its own weights.

    Raises:
        WritesWeightsError: from inside.
    """
    memory = {weight.untyped_storage().data_ptr() for weight in module.parameters() if _has_memory(weight)}

    def refuse(func: Any, address: int) -> None:
        if address in memory:
            raise WritesWeightsError(f"{func} writes into a weight")

    with seeing_writes(refuse):
        yield


@contextmanager
def seeing_writes(see: Callable[[Any, int], None]) -> Iterator[None]:
    """Calls `see` with the operator and the address of the memory before anything of this thread is written in place.

    Beneath autograd, so that no `.data` hides it; what writes past torch's operators is not seen.
    """
    with _looking_on() as mode:
        mode.watchers.append(see)
        try:
            yield
        finally:
            mode.watchers.remove(see)


@contextmanager
def seeing_operators(see: Callable[[Any, Any, Any, Any], None]) -> Iterator[None]:
    """Calls `see` with every operator of this thread, what it was given, by place and by name, and what it returned.

    Beneath autograd, which has numbered what it records of it, and gives that to what was returned afterwards.
    """
    with _looking_on() as mode:
        mode.witnesses.append(see)
        try:
            yield
        finally:
            mode.witnesses.remove(see)


_here = threading.local()


@contextmanager
def _looking_on() -> Iterator[_Operators]:
    """The one mode of this thread, which is on inside."""
    if (running := getattr(_here, "mode", None)) is not None:
        yield running
        return
    _here.mode = mode = _Operators()
    try:
        with mode:
            yield mode
    finally:
        _here.mode = None


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_meta


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.watchers: list[Callable[[Any, int], None]] = []
        self.witnesses: list[Callable[[Any, Any, Any, Any], None]] = []
        self._written: dict[Any, list[tuple[int, str]]] = {}  # by operator: which of its arguments it writes to

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # it would be imported for this, which takes seconds

    @never_compiled
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        written = self._written.get(func)
        if written is None:
            arguments = enumerate(func._schema.arguments)
            written = [(at, a.name) for at, a in arguments if a.alias_info is not None and a.alias_info.is_write]
            self._written[func] = written
        kwargs = kwargs or {}
        for at, name in written:
            into = args[at] if at < len(args) else kwargs.get(name)
            for tensor in into if isinstance(into, list | tuple) else (into,):
                if isinstance(tensor, Tensor) and _has_memory(tensor):
                    address = tensor.untyped_storage().data_ptr()
                    for see in self.watchers:
                        see(func, address)
        returned = func(*args, **kwargs)
        for witness in self.witnesses:
            witness(func, args, kwargs, returned)
        return returned
