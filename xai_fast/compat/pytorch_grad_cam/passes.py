"""grad-cam's one pass per call: its own formulas over what layers answer to the engine.

Not covered: outputs that are no table of class scores, targets that are not one per input, second derivatives
(ShapleyCAM), FullGrad with `eigen_smooth`, frozen parameters (of which grad-cam gets no gradients), layers that return
several tensors, run twice or are followed by a ReLU in place (as DenseNet's features are); the first few rows on a
model that was hardly asked about before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_grad_cam import FullGrad  # pyright: ignore[reportMissingImports]
from pytorch_grad_cam.activations_and_gradients import (  # pyright: ignore[reportMissingImports]
    ActivationsAndGradients,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.hooks import without_hooks
from xai_fast.compat.models import answer_of, engine_of

from .arguments import inputs_of, layers_of, target_of


def forward(call: Call) -> Any:
    """grad-cam's map of what the engine found in the layers."""
    cam = call.explainer
    if isinstance(cam, FullGrad):
        return _full_gradient(call)
    if not cam.detach or cam.compute_input_gradient:
        raise Uncovered("gradients of gradients, or at the input, are grad-cam's own")
    with without_hooks(cam.model, ActivationsAndGradients):
        inputs, outputs, targets = _answered(call)
    cam.outputs = outputs
    found = cam.compute_cam_per_layer(inputs, targets, call["eigen_smooth"])
    return cam.aggregate_multi_layers(found)


def _answered(call: Call) -> tuple[Tensor, Tensor, Any]:
    """Puts what the layers answered where grad-cam's hooks would have; the inputs, the outputs and the targets."""
    cam = call.explainer
    inputs, answer = inputs_of(cam, call["input_tensor"], light=True)
    names = checked_layers(cam, inputs)
    gradients = bool(cam.uses_gradients)
    if gradients:
        refuse_frozen(cam.model)
    target = target_of(call["targets"], len(inputs), answer.shape[0]) if gradients else None
    from xai_fast.engine.responses import layer_answers  # heavy; what is passed on does without

    engine = engine_of(cam, cam.model)
    found, outputs = layer_answers(engine, names, inputs.detach(), target, gradients=gradients)
    kept = cam.activations_and_grads
    kept.activations = [arranged(cam, one.activation) for one in found]
    kept.gradients = [arranged(cam, one.gradient) for one in found if one.gradient is not None]
    return inputs, outputs, _targets(call, outputs)


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
        Uncovered: it does not return one tensor once.
    """
    shapes = answer_of(cam.model, cam.model, inputs, layer).layer
    if len(shapes) != 1 or shapes[0] is None:
        raise Uncovered("a layer that does not return one tensor once")
    return shapes[0]


def arranged(cam: Any, values: Tensor) -> Tensor:
    """As grad-cam's hooks keep them."""
    values = values if cam.reshape_transform is None else cam.reshape_transform(values)
    return values.cpu().detach().contiguous()


def _targets(call: Call, outputs: Tensor) -> Any:
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


def _full_gradient(call: Call) -> Any:
    """Our sums over channels, which are resized once."""
    cam = call.explainer
    if type(cam).compute_cam_per_layer is not FullGrad.compute_cam_per_layer or call["eigen_smooth"]:
        raise Uncovered("`eigen_smooth`, or a subclass of FullGrad")
    if cam.reshape_transform is not None:
        raise Uncovered("`reshape_transform` has no meaning for FullGrad")
    refuse_frozen(cam.model)
    with without_hooks(cam.model, ActivationsAndGradients):
        inputs, answer = inputs_of(cam, call["input_tensor"])
        if inputs.ndim != 4:
            raise Uncovered("inputs that are no images")
        names = layers_of(cam)
        target = target_of(call["targets"], len(inputs), answer.shape[0])
        from xai_fast.engine.responses import bias_answers  # heavy; what is passed on does without
        from xai_fast.methods.cam.variants import full_gradient

        biases = [torch.from_numpy(bias) for bias in cam.bias_data]
        engine = engine_of(cam, cam.model)
        found, outputs = bias_answers(engine, dict(zip(names, biases, strict=True)), inputs.detach(), target)
    if len(found) != len(biases) + 1:
        raise Uncovered("a module with a bias that does not run once")
    cam.outputs = outputs
    maps = full_gradient(found, biases)
    return cam.aggregate_multi_layers(maps.float().cpu().numpy())
