"""Captum's arguments in our words; what has none is refused, and captum runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.models import answer_of, engine_of, model_of, one_tensor, refuse_changed

if TYPE_CHECKING:
    from xai_fast.engine import Engine

Target = Tensor | Callable[..., Any]


@dataclass(frozen=True)
class Asked:
    """A call that the engine can serve.

    Attributes:
        engine: of the model.
        inputs: (N, C, *S).
        target: the class of each input, or a function of the model's output.
        as_tuple: whether the inputs came as a tuple, and so go the maps.
    """

    engine: Engine
    inputs: Tensor
    target: Target
    as_tuple: bool

    def returned(self, values: Tensor) -> Any:
        """As captum returns it."""
        return (values,) if self.as_tuple else values


def asked(call: Call, layer: Any = None) -> Asked:
    """The call in our words.

    Raises:
        Uncovered: the engine does not serve it.
    """
    refuse_changed(call.explainer, "captum")
    inputs = one_tensor(call["inputs"])
    if call["additional_forward_args"] is not None:
        raise Uncovered("`additional_forward_args` are given")
    if call["show_progress"]:
        raise Uncovered("`show_progress` is captum's own")
    return asked_of(
        call.explainer, call.explainer.forward_func, inputs, call["target"], isinstance(call["inputs"], tuple), layer
    )


def asked_of(
    explainer: Any, forward: Any, inputs: Tensor, target: Any, as_tuple: bool = False, layer: Any = None
) -> Asked:
    """The same of its parts.

    Raises:
        Uncovered: the engine does not serve it.
    """
    model = model_of(forward)
    answer = answer_of(forward, model, inputs, layer)
    if answer.dtype is not inputs.dtype:
        raise Uncovered(f"the model answers {answer.dtype} to {inputs.dtype}")
    return Asked(engine_of(explainer, model), inputs, target_of(target, len(inputs), answer.shape), as_tuple)


def target_of(target: Any, count: int, shape: tuple[int, ...]) -> Target:
    """The target of `count` inputs for a model whose output has this shape per row.

    Raises:
        Uncovered: captum refuses it, or gives maps of several outputs.
    """
    if target is None:
        if shape not in ((), (1,)):
            raise Uncovered("no target, and several outputs")
        return torch.zeros(count, dtype=torch.long)
    if isinstance(target, tuple):
        target = _index(target) if len(target) != 1 else target[0]
    if callable(target) and not isinstance(target, Tensor):
        if len(getattr(target, "at", ())) != len(shape):
            raise Uncovered("a tuple target that selects no single number")
        return target
    return _classes(target, count, shape)


def _classes(target: Any, count: int, shape: tuple[int, ...]) -> Tensor:
    if isinstance(target, list):
        if not all(type(one) is int for one in target):
            raise Uncovered("a list of targets that are no ints")
        target = torch.tensor(target)
    elif type(target) is int:
        target = torch.tensor([target])
    if not isinstance(target, Tensor) or target.is_floating_point() or target.dtype is torch.bool:
        raise Uncovered(f"targets of type {type(target).__name__}")
    if len(shape) != 1 or target.ndim > 1 or target.numel() not in (1, count):
        raise Uncovered("targets that do not fit the model's output")
    target = target.detach().long().cpu().reshape(-1).expand(count)
    if int(target.min()) < 0 or int(target.max()) >= shape[0]:
        raise Uncovered("targets that do not fit the model's output")
    return target.clone()


def _index(at: tuple[Any, ...]) -> Callable[[Tensor], Tensor]:
    if not all(type(one) is int for one in at):
        raise Uncovered("a tuple target that holds slices")

    def chosen(output: Tensor) -> Tensor:
        return output[(slice(None), *at)]

    chosen.at = at  # type: ignore[attr-defined]
    return chosen


def baseline_of(baselines: Any, inputs: Tensor) -> float | Tensor:
    """The one baseline.

    Raises:
        Uncovered: it does not fit.
    """
    if isinstance(baselines, tuple):
        if len(baselines) != 1:
            raise Uncovered("several baselines")
        baselines = baselines[0]
    if baselines is None:
        return 0.0
    if isinstance(baselines, int | float) and not isinstance(baselines, bool):
        return float(baselines)
    if not isinstance(baselines, Tensor) or baselines.dtype is not inputs.dtype or baselines.device != inputs.device:
        raise Uncovered("a baseline of another type or device than the inputs")
    if baselines.shape[1:] != inputs.shape[1:] or len(baselines) not in (1, len(inputs)):
        raise Uncovered("a baseline of another shape than the inputs")
    return baselines.detach()


def differentiable(*tensors: Any) -> bool:
    """Whether captum's own result could be differentiated by one of these."""
    return torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in tensors)
