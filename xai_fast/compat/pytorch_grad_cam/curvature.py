"""grad-cam's ShapleyCAM: its own weights over gradients, and their derivatives by the layer, that the engine found.

grad-cam differentiates twice through the whole model, down to the input; the engine does from the layer on.

Not covered: several layers (of which grad-cam raises at the second), `reshape_transform`, subclasses with formulas of
their own, what `passes` does not cover; the first call on each layer, which shows whether what follows it can be
differentiated twice at all: of fused attention and of what holds no parameters grad-cam raises.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from pytorch_grad_cam.activations_and_gradients import (  # pyright: ignore[reportMissingImports]
    ActivationsAndGradients,
)
from torch import Tensor, nn

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.hooks import without_hooks
from xai_fast.compat.models import engine_of, refuse_changed

from .arguments import checked_layers, class_targets, inputs_of, refuse_frozen, target_of

if TYPE_CHECKING:
    from xai_fast.core.targets import Target

_TWICE: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # layers of which grad-cam gave a map


def shapley(call: Call) -> Any:
    """grad-cam's map of what the engine found in the layer."""
    cam = call.explainer
    refuse_changed(cam, "pytorch_grad_cam", "forward")
    if len(cam.target_layers) != 1 or cam.reshape_transform is not None:
        raise Uncovered("several layers, or `reshape_transform`: grad-cam's second derivatives are of neither")
    refuse_frozen(cam.model)
    (layer,) = cam.target_layers
    with without_hooks(cam.model, ActivationsAndGradients):
        inputs, answer = inputs_of(cam, call["input_tensor"], light=True)
        names = checked_layers(cam, inputs)
        target = target_of(call["targets"], len(inputs), answer.shape[0])
        if layer in _TWICE:
            return _map(call, names, inputs, target)
    found = call.plain()
    _TWICE.add(layer)
    call.reason = "the first call on a layer: whether it can be differentiated twice, grad-cam's code shows"
    return found


def _map(call: Call, names: list[str], inputs: Tensor, target: Target) -> Any:
    """grad-cam's, of the one layer named."""
    from xai_fast.engine.responses import layer_answers  # heavy; what is passed on does without

    cam = call.explainer
    engine = engine_of(cam, cam.model)
    (found,), outputs = layer_answers(engine, names, inputs.detach(), target, gradients=True, curvature=True)
    assert found.gradient is not None
    assert found.curvature is not None
    activation = found.activation.contiguous().requires_grad_()
    gradient = _Differentiable.apply(activation, found.gradient.contiguous(), found.curvature.contiguous())
    kept, cam.outputs = cam.activations_and_grads, outputs
    kept.activations, kept.gradients = [activation], [gradient]
    maps = cam.compute_cam_per_layer(inputs, class_targets(call, outputs), call["eigen_smooth"])
    return cam.aggregate_multi_layers(maps)


class _Differentiable(torch.autograd.Function):
    """Gradients by a layer whose derivative, times what the layer returned, is known."""

    @staticmethod
    def forward(ctx: Any, activation: Tensor, gradient: Tensor, curvature: Tensor) -> Tensor:
        ctx.save_for_backward(activation, curvature)
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        activation, curvature = ctx.saved_tensors
        if not torch.equal(given[0], activation):
            raise Uncovered("another release of grad-cam, which multiplies second derivatives by something else")
        return curvature, None, None
