"""Captum's arguments in our words; what has none is refused, and captum runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.joined import Given, given
from xai_fast.compat.models import accept, answer_of, engine_of, model_of, refuse_changed
from xai_fast.compat.watched import Answer
from xai_fast.compat.worth import Work

if TYPE_CHECKING:
    from xai_fast.engine import Engine

SEVERAL = "no target, and several outputs"
Target = Tensor | Callable[..., Any]


@dataclass(frozen=True)
class Asked:
    """A call that the engine can serve.

    Attributes:
        engine: of the model.
        given: the inputs as one batch, and how they lie in it.
        target: the class of each input, or a function of the model's output.
        as_tuple: whether the inputs came as a tuple, and so go the maps.
        answer: what the model says to one of them.
    """

    engine: Engine
    given: Given
    target: Target
    as_tuple: bool
    answer: Answer

    @property
    def inputs(self) -> Tensor:
        """(N, C, *S)."""
        return self.given.batch

    def returned(self, values: Tensor) -> Any:
        """As captum returns it."""
        return self.given.returned(values, self.as_tuple)


def refuse_own_gradients(explainer: Any) -> None:
    """Refuses explainers that were given a `gradient_func`, as captum's methods of neurons do.

    Raises:
        Uncovered: it is one.
    """
    from captum._utils.gradient import compute_gradients  # pyright: ignore[reportMissingImports]

    if explainer.gradient_func is not compute_gradients:
        raise Uncovered("the explainer has its own `gradient_func`")


def asked(call: Call, work: Work, layer: Any = None) -> Asked:
    """The call in our words.

    Args:
        call: of captum's method.
        work: what captum would ask of the model.
        layer: that is looked at, if one is.

    Raises:
        Uncovered: the engine does not serve it.
    """
    refuse_changed(call.explainer, "captum")
    if call["show_progress"]:
        raise Uncovered("`show_progress` is captum's own")
    return asked_of(call.explainer, given_of(call), call["target"], work, isinstance(call["inputs"], tuple), layer)


def given_of(call: Call) -> Given:
    """What the model gets, as one batch.

    Raises:
        Uncovered: it does not lie in one.
    """
    explainer = call.explainer
    function = getattr(explainer.forward_func, "func", explainer.forward_func)
    if not isinstance(function, nn.Module) and str(getattr(function, "__module__", "")).startswith("captum."):
        raise Uncovered("a forward of captum's own, which counts how often it runs")
    return given(explainer, explainer.forward_func, call["inputs"], call["additional_forward_args"])


def rows_of(call: Call) -> int:
    """How many inputs there are.

    Raises:
        Uncovered: they are no tensors.
    """
    first = call["inputs"][0] if isinstance(call["inputs"], tuple) and call["inputs"] else call["inputs"]
    if not isinstance(first, Tensor) or not first.ndim or not len(first):
        raise Uncovered(f"inputs of type {type(first).__name__}, or without rows")
    return len(first)


def features_of(call: Call) -> int:
    """About how many features of one input captum's perturbations tell apart."""
    masks = [mask for mask in tensors_in(call["feature_mask"]) if isinstance(mask, Tensor) and mask.numel()]
    if masks:
        return max(int(mask.max()) for mask in masks) - min(int(mask.min()) for mask in masks) + 1
    return sum(one[0].numel() for one in tensors_in(call["inputs"]) if isinstance(one, Tensor) and len(one))


def number_of(call: Call, name: str) -> int:
    """An argument that counts something; 1 where captum will refuse it."""
    return call[name] if type(call[name]) is int and call[name] > 0 else 1


def asked_of(explainer: Any, given: Given, target: Any, work: Work, as_tuple: bool = False, layer: Any = None) -> Asked:
    """The same of its parts.

    Raises:
        Uncovered: the engine does not serve it.
    """
    inputs, model = given.batch, model_of(given.forward)
    answer = answer_of(given.forward, model, inputs, layer)
    if answer.dtype is not inputs.dtype:
        raise Uncovered(f"the model answers {answer.dtype} to {inputs.dtype}")
    chosen = target_of(target, len(inputs), answer.shape)
    accept(given.forward, model, inputs, answer, work)
    return Asked(engine_of(explainer, model), given, chosen, as_tuple, answer)


def target_of(target: Any, count: int, shape: tuple[int, ...]) -> Target:
    """The target of `count` inputs for a model whose output has this shape per row.

    Raises:
        Uncovered: captum refuses it, or gives maps of several outputs.
    """
    if target is None:
        if shape not in ((), (1,)):
            raise Uncovered(SEVERAL)
        return torch.zeros(count, dtype=torch.long)
    if isinstance(target, tuple):
        target = _index(target) if len(target) != 1 else target[0]
    if callable(target) and not isinstance(target, Tensor):
        if len(getattr(target, "at", ())) != len(shape):
            raise Uncovered("a tuple target that selects no single number")
        return target
    return _classes(target, count, shape)


def _classes(target: Any, count: int, shape: tuple[int, ...]) -> Target:
    if isinstance(target, list) and target and all(isinstance(one, tuple) for one in target):
        return _index_of_each(target, count, shape)
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


def _index_of_each(target: list[tuple[Any, ...]], count: int, shape: tuple[int, ...]) -> Target:
    if len(target) != count or not all(len(one) == len(shape) for one in target):
        raise Uncovered("targets that do not fit the model's output")
    if not all(type(at) is int and 0 <= at < size for one in target for at, size in zip(one, shape, strict=True)):
        raise Uncovered("targets that do not fit the model's output")
    places = torch.tensor(target)

    def chosen(output: Tensor, sample: Tensor) -> Tensor:
        own = places[sample.to(places.device)].to(output.device)
        return output[(torch.arange(len(output), device=output.device), *own.unbind(1))]

    chosen.at = target[0]  # type: ignore[attr-defined]
    return chosen


def baselines_of(call: Call, asked_for: Asked) -> float | Tensor:
    """The baseline of what is explained; what is not stays what it is.

    Raises:
        Uncovered: it does not fit.
    """
    layout, batch = asked_for.given.layout, asked_for.inputs
    if layout is None:
        return baseline_of(call["baselines"], batch)
    inputs = call["inputs"] if isinstance(call["inputs"], tuple) else (call["inputs"],)
    baselines = call["baselines"] if isinstance(call["baselines"], tuple) else (call["baselines"],)
    baselines = baselines * len(inputs) if baselines == (None,) else baselines
    if len(baselines) != len(inputs):
        raise Uncovered("another number of baselines than of inputs")
    found = [baseline_of(baseline, one) for baseline, one in zip(baselines, inputs, strict=True)]
    further = batch.shape[2] > sum(one[0].numel() for one in inputs)
    if not further and all(isinstance(one, float) and one == found[0] for one in found):
        return found[0]
    rows = len(batch) if further else max(len(one) if isinstance(one, Tensor) else 1 for one in found)
    wide = [
        one.expand(rows, *like.shape[1:]) if isinstance(one, Tensor) else like.new_full((rows, *like.shape[1:]), one)
        for one, like in zip(found, inputs, strict=True)
    ]
    joined = torch.cat([one.detach().reshape(rows, 1, -1) for one in wide], 2)
    return torch.cat([joined, batch[:, :, joined.shape[2] :]], 2) if further else joined


def laid_as(gradients: Tensor, inputs: Tensor) -> Tensor:
    """In the inputs' memory format, which autograd's gradients have."""
    last = inputs.ndim == 4 and not inputs.is_contiguous() and inputs.is_contiguous(memory_format=torch.channels_last)
    return gradients.contiguous(memory_format=torch.channels_last) if last else gradients


def convergence_delta(call: Call, values: Any) -> Any:
    """Captum's own check of what values add up to."""
    inputs = call["inputs"]
    given = call["baselines"]
    if given is None:
        given = (0,) * len(inputs) if isinstance(inputs, tuple) else 0
    return call.explainer.compute_convergence_delta(
        values, given, inputs, additional_forward_args=call["additional_forward_args"], target=call["target"]
    )


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


def tensors_in(given: Any) -> tuple[Any, ...]:
    """What came alone or as a tuple, as a tuple."""
    return given if isinstance(given, tuple) else (given,)


def differentiable(*tensors: Any) -> bool:
    """Whether captum's own result could be differentiated by one of these."""
    return torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in tensors)
