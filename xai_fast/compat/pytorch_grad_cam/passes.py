"""grad-cam's one pass per call: its own formulas over what layers answer to the engine.

Not covered: outputs that are no table of class scores, targets that are not one per input, second derivatives (but
ShapleyCAM's, in `curvature`), FullGrad with `eigen_smooth`, frozen parameters (of which grad-cam gets no gradients),
layers that return several tensors, run twice or are followed by a ReLU in place (as DenseNet's features are); the first
two rows on a model where nothing has loaded the engine yet.
"""

from __future__ import annotations

from typing import Any

import pytorch_grad_cam  # pyright: ignore[reportMissingImports]
import torch
from pytorch_grad_cam import FullGrad  # pyright: ignore[reportMissingImports]
from pytorch_grad_cam.activations_and_gradients import (  # pyright: ignore[reportMissingImports]
    ActivationsAndGradients,
)
from torch import Tensor

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.hooks import without_hooks
from xai_fast.compat.models import engine_of

from .arguments import checked_layers, class_targets, inputs_of, layers_of, refuse_frozen, target_of
from .curvature import shapley


def forward(call: Call) -> Any:
    """grad-cam's map of what the engine found in the layers."""
    cam = call.explainer
    if isinstance(cam, FullGrad):
        return _full_gradient(call)
    if isinstance(cam, getattr(pytorch_grad_cam, "ShapleyCAM", ())):
        return shapley(call)
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
    return inputs, outputs, class_targets(call, outputs)


def arranged(cam: Any, values: Tensor) -> Tensor:
    """As grad-cam's hooks keep them."""
    values = values if cam.reshape_transform is None else cam.reshape_transform(values)
    return values.cpu().detach().contiguous()


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
