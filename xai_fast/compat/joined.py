"""Several input tensors, rows of features and further arguments as the one batch that the engine takes.

What a library calls its model with lies in one batch (N, 1, numbers), side by side, and the model is given a forward
that takes it apart again. What is not explained, but has a row per input, lies there as well, so that every variant
meets its own; what has no rows is part of that forward.
"""

from __future__ import annotations

import copy
import math
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.core.arguments import reshaped

from .calls import Uncovered
from .models import model_of, one_tensor

_FLOATS = (torch.float32, torch.float64)
_WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_PLAIN = (bool, int, float, str, type(None))
_EXACT = 2**24  # whole numbers up to here are exact in single precision
_KEPT = 4  # forwards that are remembered of one model


@dataclass(frozen=True)
class Layout:
    """How the arguments of a forward lie in one batch.

    Attributes:
        shapes: of the tensors, without the rows; None where an argument is no tensor with rows.
        dtypes: of the tensors, alike.
        constants: copies of those other arguments, in order, which their owner may change between calls.
        explained: how many of the tensors, the first ones, are explained.
        dtype: of the batch.
    """

    shapes: tuple[tuple[int, ...] | None, ...]
    dtypes: tuple[torch.dtype | None, ...]
    constants: tuple[Any, ...]
    explained: int
    dtype: torch.dtype

    @property
    def key(self) -> Any:
        """What two layouts have in common whose forwards are the same."""
        return self.shapes, self.dtypes, tuple(map(_contents, self.constants)), self.explained, self.dtype

    def batch(self, tensors: Sequence[Tensor]) -> Tensor:
        """(N, 1, numbers) of tensors with N rows."""
        return torch.cat([one.detach().reshape(len(one), 1, -1).to(self.dtype) for one in tensors], 2)

    def arguments(self, batch: Tensor) -> list[Any]:
        """What the library's model takes."""
        given, constants, start = [], iter(self.constants), 0
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            if shape is None or dtype is None:
                given.append(next(constants))
                continue
            stop = start + math.prod(shape)
            given.append(batch[:, 0, start:stop].reshape(-1, *shape).to(dtype))
            start = stop
        return given

    def explained_parts(self, values: Tensor) -> tuple[Tensor, ...]:
        """The parts of (N, 1, numbers) that belong to the inputs, in their shapes."""
        sizes = [math.prod(shape) for shape in self.shapes[: self.explained] if shape is not None]
        parts = values[:, 0, : sum(sizes)].split(sizes, 1)
        return tuple(
            part.reshape(-1, *shape).contiguous()
            for part, shape in zip(parts, self.shapes, strict=False)
            if shape is not None
        )


@dataclass(frozen=True)
class Given:
    """What a library's method was given, in our words.

    Attributes:
        forward: of one batch, to be watched and asked.
        batch: (N, C, *S).
        layout: how the library's arguments lie in it; None where it is its one input.
    """

    forward: Any
    batch: Tensor
    layout: Layout | None

    def returned(self, values: Tensor, as_tuple: bool) -> Any:
        """Maps of the batch as the library returns them: of every input one."""
        if self.layout is None:
            return (values,) if as_tuple else values
        parts = self.layout.explained_parts(values)
        return parts if as_tuple else parts[0]


def given(explainer: Any, forward: Any, inputs: Any, further: Any = None) -> Given:
    """The inputs, with what else the model takes, as one batch.

    Args:
        explainer: the library's, with which forwards of functions are forgotten.
        forward: the library's model.
        inputs: a tensor or several.
        further: what follows them, as the library takes it: anything, or a tuple.

    Raises:
        Uncovered: they do not lie in one batch.
    """
    extra = () if further is None else further if isinstance(further, tuple) else (further,)
    tensors = inputs if isinstance(inputs, tuple) else (inputs,)
    if len(tensors) == 1 and not extra and not (isinstance(tensors[0], Tensor) and tensors[0].ndim == 2):
        return Given(forward, one_tensor(inputs), None)
    rows, layout = laid_out(tensors, extra)
    model = model_of(forward)
    return Given(_forward_of(explainer, model, layout), layout.batch(rows), layout)


def laid_out(inputs: Sequence[Any], extra: Sequence[Any]) -> tuple[list[Tensor], Layout]:
    """The tensors that have rows, and how they lie in one batch.

    Raises:
        Uncovered: an input is no floating tensor, or they differ in rows, type or device.
    """
    for one in inputs:
        _refuse(one)
    first = inputs[0]
    if any(one.dtype is not first.dtype or one.device != first.device for one in inputs):
        raise Uncovered("inputs of several types or devices")
    if any(len(one) != len(first) for one in inputs):
        raise Uncovered("inputs of several numbers of rows")
    rows, constants = list(inputs), []
    shapes: list[tuple[int, ...] | None] = [tuple(one.shape[1:]) for one in inputs]
    dtypes: list[torch.dtype | None] = [one.dtype for one in inputs]
    for one in extra:
        follows = isinstance(one, Tensor) and one.ndim > 0
        if follows:
            _refuse_further(one, first)
            rows.append(one)
        else:
            _contents(one)
            constants.append(copy.deepcopy(one))
        shapes.append(tuple(one.shape[1:]) if follows else None)
        dtypes.append(one.dtype if follows else None)
    return rows, Layout(tuple(shapes), tuple(dtypes), tuple(constants), len(inputs), first.dtype)


def _refuse(one: Any) -> None:
    if type(one) not in (Tensor, nn.Parameter) or one.layout is not torch.strided:
        raise Uncovered(f"inputs of type {type(one).__name__}, or sparse")
    if one.dtype not in _FLOATS:
        raise Uncovered(f"inputs of {one.dtype}")
    if one.ndim < 2:
        raise Uncovered(f"inputs with {one.ndim} axes")
    if 0 in one.shape:
        raise Uncovered("inputs without elements")


def _refuse_further(one: Tensor, first: Tensor) -> None:
    if type(one) is not Tensor or one.layout is not torch.strided or one.device != first.device:
        raise Uncovered("a further argument that is no plain tensor where the inputs are")
    if len(one) != len(first) or 0 in one.shape:
        raise Uncovered("a further argument that has not a row per input")
    if one.requires_grad:
        raise Uncovered("a further argument that needs a gradient")
    if one.dtype in _WHOLE:
        if one.dtype is not torch.bool and int(one.abs().max()) > _EXACT:
            raise Uncovered("a further argument of whole numbers that are too large")
    elif one.dtype is not first.dtype:
        raise Uncovered(f"a further argument of {one.dtype} beside inputs of {first.dtype}")


def _contents(one: Any) -> Hashable:
    """What a further argument without rows is, by value: what was prepared for others does not answer for it.

    Raises:
        Uncovered: it is of a kind that may hold anything, or that the model may write into.
    """
    if type(one) in _PLAIN:
        return type(one), repr(one)
    if type(one) is tuple:
        return tuple, tuple(map(_contents, one))
    if type(one) is Tensor and one.ndim == 0 and not one.requires_grad:
        return one.dtype, one.device, repr(one.item())
    raise Uncovered(f"a further argument of type {type(one).__name__}, which may change unseen")


_LOCK = threading.Lock()
_FORWARDS: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


def _forward_of(explainer: Any, model: Any, layout: Layout) -> Any:
    """The model as a function of one batch; remembered, so that it is prepared once."""
    owner = model if isinstance(model, nn.Module) else explainer
    with _LOCK:
        kept = _FORWARDS.setdefault(owner, {})
        known = kept.get(layout.key)
        if known is None or (not isinstance(model, nn.Module) and known[1] is not model):
            while len(kept) >= _KEPT:
                del kept[next(iter(kept))]
            # A module's new forward does not hold the module.
            known = kept[layout.key] = (_made(model, layout), None if isinstance(model, nn.Module) else model)
        return known[0]


def _made(model: Any, layout: Layout) -> Any:
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        return _Function(model, layout)
    kind: Any = type(model)
    own: Callable[..., Any] | None = vars(model).get("forward")
    if own is not None:
        raise Uncovered("the model has a forward of its own beside its class's")

    def forward(self: nn.Module, batch: Tensor) -> Any:
        return kind.forward(self, *layout.arguments(batch))

    return reshaped(model, forward)


class _Function:
    """A function of several arguments as one of a batch."""

    def __init__(self, function: Any, layout: Layout) -> None:
        self._function, self._layout = function, layout

    def __call__(self, batch: Tensor) -> Any:
        return self._function(*self._layout.arguments(batch))
