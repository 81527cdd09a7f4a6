"""Stand-ins for the tensors of a forward while it is traced, which answer what is asked of sizes.

What a forward does with one of them is written down by its tracer (`tracing.Tracer`).
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.proxy import TraceError
from torch.overrides import TorchFunctionMode

from .sizes import TRAITS, Sizes


class RowsError(TraceError, TypeError):
    """A forward goes through the rows; a TypeError because that is how forwards find out that they cannot."""


class StandIn(fx.Proxy):
    """A stand-in that answers what is asked of sizes."""

    tracer: Any

    @property
    def _sizes(self) -> Sizes:
        assert self.tracer.sizes is not None
        return self.tracer.sizes

    @property
    def __class__(self) -> type:  # type: ignore[override]
        """That of the number it stands for, which forwards and torch's own argument parser ask for.

        A tensor must not be claimed: compiled code would take this object for one without looking further.
        """
        return self._sizes.type_of(self.node) if self.tracer.numeric(self.node) else type(self)

    def __getattr__(self, k: str) -> Any:
        if k.startswith("_"):
            raise AttributeError(k)
        if k == "device":
            return self._sizes.example.device
        if k == "requires_grad":  # it does where gradients are taken, where another way may be taken then
            self.tracer.gradient_gaps = True
            return False
        # A number has no attributes of a tensor, and a tuple that a function returned has more.
        tensor = not self.tracer.numeric(self.node) and hasattr(Tensor, k)
        if not tensor and not hasattr(self._sizes.one(self.node), k):
            raise AttributeError(k)
        attribute = _Attribute(self, k)
        if k in TRAITS and not callable(getattr(Tensor, k)):
            return self.tracer.settled(attribute)
        return attribute

    def __bool__(self) -> bool:
        return self._sizes.known(self.node, bool)

    def __int__(self) -> int:
        return self._sizes.known(self.node, int)

    def __index__(self) -> int:
        return self._sizes.known(self.node, operator.index)

    def __float__(self) -> float:
        return self._sizes.known(self.node, float)

    def __len__(self) -> int:
        """How many parts it has.

        Raises:
            RowsError: as many as there are rows.
        """
        one, two = self._sizes.both(self.node)
        if len(one) != len(two):
            raise RowsError("its forward goes through the rows one by one")
        return len(one)

    def __iter__(self) -> Iterator[Any]:
        whole: Any = self
        return iter([operator.getitem(whole, part) for part in range(len(self))])

    def __hash__(self) -> int:
        value = self._sizes.one(self.node)
        return object.__hash__(self) if isinstance(value, Tensor) else hash(self._sizes.known(self.node))

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})


class _Later(StandIn):
    """A stand-in whose node is made when something is done with it."""

    def _make(self) -> fx.Node:
        raise NotImplementedError

    @property
    def node(self) -> fx.Node:  # type: ignore[override]
        """The node."""
        if "_made" not in self.__dict__:
            self.__dict__["_made"] = self._make()
        return self.__dict__["_made"]


class Read(_Later):
    """A parameter or buffer."""

    def __init__(self, tracer: Any, path: str) -> None:
        self.__dict__.update(tracer=tracer, _path=path)

    def _make(self) -> fx.Node:
        return self.tracer.create_node("get_attr", self.__dict__["_path"], (), {})


class _Attribute(_Later):
    """An attribute, or a method that is about to be called."""

    def __init__(self, owner: StandIn, name: str) -> None:
        self.__dict__.update(tracer=owner.tracer, _owner=owner, _name=name)

    def _make(self) -> fx.Node:
        return self.tracer.create_node(
            "call_function", getattr, (self.__dict__["_owner"].node, self.__dict__["_name"]), {}
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.tracer.create_proxy("call_method", self.__dict__["_name"], (self.__dict__["_owner"], *args), kwargs)


class Functions(TorchFunctionMode):
    """Writes down functions of torch that are given a stand-in where they look for no tensor, such as a size."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        found = stand_in((args, kwargs))
        if found is None:
            return func(*args, **kwargs)
        if isinstance(func, torch._C.ScriptMethod):
            return found.tracer.create_proxy("call_method", func.name, (func.owner, *args), kwargs)
        if torch.overrides.is_tensor_method_or_property(func):
            return found.tracer.create_proxy("call_method", func.__name__, args, kwargs)
        return found.tracer.create_proxy("call_function", func, args, kwargs)


def stand_in(structure: Any) -> fx.Proxy | None:
    """The first stand-in in a nest of arguments."""
    if isinstance(structure, fx.Proxy):
        return structure
    if isinstance(structure, slice):
        structure = (structure.start, structure.stop, structure.step)
    elif isinstance(structure, dict):
        structure = structure.values()
    elif not isinstance(structure, list | tuple):
        return None
    return next((found for part in structure if (found := stand_in(part)) is not None), None)
