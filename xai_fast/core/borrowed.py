"""A copy of the caller's model that borrows its weights: ready at once, and kept from writing to them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
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
    with _ReadOnly({weight.untyped_storage().data_ptr() for weight in module.parameters() if _has_memory(weight)}):
        yield


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_meta


class _ReadOnly(TorchDispatchMode):
    def __init__(self, memory: Collection[int]) -> None:
        super().__init__()
        self._memory = memory
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
                if isinstance(tensor, Tensor) and _has_memory(tensor) and self._borrowed(tensor):
                    raise WritesWeightsError(f"{func} writes into a weight")
        return func(*args, **kwargs)

    def _borrowed(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._memory
