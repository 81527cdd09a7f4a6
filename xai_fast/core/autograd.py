"""Gradients by autograd, where torch's own backward is right and where it is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

_BATCH_NORM = ("NativeBatchNormBackward", "BatchNormWithUpdateBackward", "NativeBatchNormLegit")
_BACKWARDS = {
    getattr(torch.ops.aten, name).default
    for name in ("native_batch_norm_backward", "batch_norm_backward")
    if hasattr(torch.ops.aten, name)
}
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor | GradientEdge],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    **options: Any,
) -> tuple[Tensor, ...]:
    """`torch.autograd.grad`, with batch normalisation's backward told how its gradient lies in memory.

    On CPUs torch (2.14) asks strides for the layout, and those of axes of one element may say anything: a gradient that
    lies as tokens do, (C, 1, W * C, C) for one row, passes for contiguous and is read in another order than it has.
    Behind attention over a grid that is every photograph that comes alone.

    Costs a walk over the graph, and 5 us for every operation of a backward that meets such an axis.

    Of a tensor that has hooks it is the gradient behind them, as its `.grad` would be and as what comes before it gets;
    torch (2.14) gives what arrives at them where the backward goes on to another of the tensors asked for.

    Raises:
        ValueError: the model checkpoints in the way in which torch gives no gradient at an input.
    """
    try:
        with _mended(outputs), _BehindHooks(inputs) as behind:
            # Its types do not name the edges that it takes from torch 2.2 on.
            return behind(torch.autograd.grad(outputs, cast("Any", inputs), grad_outputs, **options))
    except RuntimeError as error:
        if "use_reentrant=True" not in str(error):
            raise
        raise ValueError(
            "`model` runs torch.utils.checkpoint with use_reentrant=True, through which torch gives no gradient at an "
            "input; give the checkpoint use_reentrant=False, or switch checkpointing off"
        ) from error


def _mended(outputs: Tensor | Sequence[Tensor]) -> AbstractContextManager[Any]:
    ends = [outputs] if isinstance(outputs, Tensor) else outputs
    return _TrueLayout() if any(map(_may_misread, _nodes([end.grad_fn for end in ends]))) else nullcontext()


class _BehindHooks:
    """Sees the gradients of tensors that have hooks as the last one leaves them."""

    def __init__(self, inputs: Tensor | Sequence[Tensor | GradientEdge]) -> None:
        tensors = [inputs] if isinstance(inputs, Tensor) else inputs
        self._hooked = {at: one for at, one in enumerate(tensors) if isinstance(one, Tensor) and one._backward_hooks}
        self._seen: dict[int, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> _BehindHooks:
        self._handles = [one.register_hook(partial(self._see, at)) for at, one in self._hooked.items()]
        return self

    def __exit__(self, *_error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def __call__(self, found: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(self._seen.get(at, gradient) for at, gradient in enumerate(found))

    def _see(self, at: int, gradient: Tensor) -> None:
        self._seen[at] = gradient


class _TrueLayout(TorchDispatchMode):
    """Hands batch normalisation's backward a gradient that lies as its input does."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _BACKWARDS:
            gradient, at, *others = args
            args = (_laid_out_as(at, gradient), at, *others)
        return func(*args, **(kwargs or {}))


def _laid_out_as(like: Tensor, gradient: Tensor) -> Tensor:
    """The gradient, dense in the layout in which `like` is; as it is where that is dense in none."""
    for layout in (torch.contiguous_format, _FORMATS.get(like.ndim)):
        if layout is not None and like.is_contiguous(memory_format=layout):
            return gradient.contiguous(memory_format=layout)
    return gradient


def _may_misread(node: Any) -> bool:
    """Whether a step of a backward normalises a batch with axes of one element, or may do so unseen."""
    name = node.name()
    if not name.startswith(_BATCH_NORM):
        # What Python, TorchScript and compilers bring along has no number behind its name.
        return not (name[-1].isdigit() or name.startswith("torch::autograd::"))
    rows, _channels, *extents = node._input_metadata[0].shape
    return 1 in (rows, *extents)


def _nodes(ends: list[Any]) -> Iterator[Any]:
    """Every step of a backward that begins at these."""
    waiting, seen = [end for end in ends if end is not None], set[Any]()
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            yield node
            waiting += [following for following, _ in node.next_functions if following is not None]
