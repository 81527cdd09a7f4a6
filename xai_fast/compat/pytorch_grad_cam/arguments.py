"""grad-cam's arguments in our words; what has none is refused, and grad-cam runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.models import accept, answer_of, model_of, one_tensor
from xai_fast.compat.watched import Answer
from xai_fast.compat.worth import Work, pays

if TYPE_CHECKING:
    from xai_fast.core.targets import Target


def inputs_of(
    cam: Any, inputs: Any, *, light: bool = False, rows_each: int = 1, gradients: bool = True
) -> tuple[Tensor, Answer]:
    """The inputs where the model is, and what the model answers to one of them; its hooks are out.

    Args:
        cam: grad-cam's object.
        inputs: as given.
        light: whether the call is one pass per row.
        rows_each: that grad-cam asks the model about for each input.
        gradients: whether it asks for gradients.

    Raises:
        Uncovered: the engine does not serve them.
    """
    if not cam.activations_and_grads.handles:
        raise Uncovered("its hooks were taken out of the model")
    if isinstance(inputs, Tensor) and inputs.requires_grad and cam.uses_gradients:
        raise Uncovered("an input that requires a gradient, which grad-cam leaves there")
    rows = one_tensor(inputs).to(cam.device)
    model = model_of(cam.model)
    if not isinstance(model, nn.Module):
        raise Uncovered("the model is no module")
    if light:
        pays(model, len(rows), unprepared=True)  # grad-cam runs backward through all weights
    answer = answer_of(model, model, rows)
    if len(answer.shape) != 1 or answer.dtype is not rows.dtype:
        raise Uncovered("the model's output is no table of class scores in the inputs' type")
    accept(model, model, rows, answer, Work(len(rows) * rows_each, gradients=gradients), unprepared=light)
    return rows, answer


def target_of(targets: Any, count: int, classes: int) -> Target:
    """The targets of `count` inputs: a class of each, or what grad-cam's callables make of each row of the output.

    Raises:
        Uncovered: they are not as many as the inputs.
    """
    if targets is None:
        return None
    if not isinstance(targets, list | tuple) or len(targets) != count:
        raise Uncovered("targets that are not one per input")
    picked = [_class_of(target, classes) for target in targets]
    if None not in picked:
        return torch.tensor(picked)
    return _of_rows(targets)


def _of_rows(targets: Sequence[Any]) -> Target:
    """What callables, one per input, make of rows of the model's output."""

    def scores(output: Tensor, sample: Tensor) -> Tensor:
        chosen = [targets[at] for at in sample.tolist()]
        return torch.stack([target(row).reshape(()) for target, row in zip(chosen, output, strict=True)])

    return scores


def _class_of(target: Any, classes: int) -> int | None:
    if type(target) is not ClassifierOutputTarget:
        return None
    try:
        category = int(target.category)
    except (TypeError, ValueError):
        return None
    return category if category == target.category and 0 <= category < classes else None


def layers_of(cam: Any) -> list[str]:
    """The names of the layers that are looked at.

    Raises:
        Uncovered: one is no part of the model, or is looked at twice.
    """
    from xai_fast.core.layers import layer_names  # heavy; what is passed on does without

    try:
        names = list(layer_names(cam.model, list(cam.target_layers)))
    except (TypeError, ValueError):
        raise Uncovered("a target layer that is no part of the model") from None
    if len(set(names)) < len(names):
        raise Uncovered("one target layer twice")
    return names


def checked_layers(cam: Any, inputs: Tensor) -> list[str]:
    """The names of the layers that are looked at.

    Raises:
        Uncovered: one does not return one tensor once, or grad-cam, which keeps no copy, sees it written over.
    """
    for layer in cam.target_layers:
        shape_of(cam, inputs, layer)
        if answer_of(cam.model, cam.model, inputs, layer).overwritten:
            raise Uncovered("what a layer returned is written over later, in place, and grad-cam sees that")
    return layers_of(cam)


def shape_of(cam: Any, inputs: Tensor, layer: nn.Module) -> tuple[int, ...]:
    """What a layer returns for one input, without the rows.

    Raises:
        Uncovered: it does not return one tensor once, or a hook puts another in its place.
    """
    answer = answer_of(cam.model, cam.model, inputs, layer)
    if answer.replaced:
        raise Uncovered("a hook replaces what a layer returned, and grad-cam's may see what was before")
    shapes = answer.layer
    if len(shapes) != 1 or shapes[0] is None:
        raise Uncovered("a layer that does not return one tensor once")
    return shapes[0]


def class_targets(call: Call, outputs: Tensor) -> Any:
    """The targets, which are the largest scores where none are given."""
    if call["targets"] is not None:
        return call["targets"]
    return [ClassifierOutputTarget(best) for best in np.argmax(outputs.cpu().numpy(), axis=-1)]


def refuse_frozen(model: nn.Module) -> None:
    """Refuses models of which grad-cam gets no gradients.

    Raises:
        Uncovered: it is one.
    """
    if not torch.is_grad_enabled() or not all(parameter.requires_grad for parameter in model.parameters()):
        raise Uncovered("gradients are off, or parameters are frozen, so that grad-cam finds no gradient")
