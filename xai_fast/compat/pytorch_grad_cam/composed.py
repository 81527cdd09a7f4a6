"""grad-cam's classes that are no `BaseCAM`: FinerCAM over served layers, guided backpropagation, and factorizations.

Not covered: what `passes` does not cover; of guided backpropagation, ReLUs that are no `nn.ReLU` module, which grad-cam
does not replace, hooks on those that it does, and inputs that hold a gradient already, to which grad-cam adds.
`DeepFeatureFactorization` is grad-cam's own: scikit-learn's factors, stopped after 200 rounds, turn rounding in the
activations into up to half a percent of a map, and one forward as far as the layer is all that there is to save
(`xf.DeepFeatureFactorization` has our factors).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from pytorch_grad_cam.activations_and_gradients import (  # pyright: ignore[reportMissingImports]
    ActivationsAndGradients,
)
from torch import Tensor, nn

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.hooks import refuse_hooks, without_hooks
from xai_fast.compat.models import accept, answer_of, engine_of, model_of, one_tensor
from xai_fast.compat.worth import Work, pays

from .arguments import checked_layers, inputs_of, refuse_frozen
from .passes import arranged


def finer(call: Call) -> Any:
    """grad-cam's choice of classes, loss and map; its backward ends at the scores, where the engine takes over."""
    cam = call.explainer.base_cam
    if not cam.detach or cam.compute_input_gradient:
        raise Uncovered("gradients of gradients, or at the input, are grad-cam's own")
    with without_hooks(cam.model, ActivationsAndGradients):
        inputs, _ = inputs_of(cam, call["input_tensor"], light=True)
        layers, served = _Layers(cam, inputs), copy.copy(call.explainer)
        # A copy that ends with grad-cam's own hooks in it takes them out of the model.
        served.base_cam = copy.copy(cam)
        served.base_cam.activations_and_grads = layers
        return call.plain(served)


class _Layers:
    """Stands where grad-cam's hooks are: answers with scores, and asks for gradients once theirs are known."""

    def __init__(self, cam: Any, inputs: Tensor) -> None:
        refuse_frozen(cam.model)
        self._cam, self._names = cam, checked_layers(cam, inputs)
        self.activations: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.reshape_transform = cam.reshape_transform

    def __call__(self, inputs: Tensor) -> Tensor:
        """All class scores, (N, classes)."""
        found, outputs = self._ask(inputs, None)
        self.activations = [arranged(self._cam, one.activation) for one in found]

        def pull(gradient: Tensor) -> None:
            def weighted(output: Tensor, sample: Tensor) -> Tensor:
                return (output * gradient[sample.to(gradient.device)].to(output)).sum(1)

            answers, _ = self._ask(inputs, weighted)
            self.gradients = [arranged(self._cam, one.gradient) for one in answers]

        leaf = outputs.detach().clone().requires_grad_()
        leaf.register_hook(pull)
        return leaf

    def _ask(self, inputs: Tensor, target: Any) -> Any:
        from xai_fast.engine.responses import layer_answers  # heavy; what is passed on does without

        engine = engine_of(self._cam, self._cam.model)
        return layer_answers(engine, self._names, inputs.detach(), target, gradients=target is not None)

    def release(self) -> None:
        """There is nothing to take out of the model."""


def guided_backprop(call: Call) -> Any:
    """Our method of the first image, (H, W, C); the model keeps its modules."""
    explainer = call.explainer
    inputs = one_tensor(call["input_img"])
    model = model_of(explainer.model)
    if inputs.grad is not None:
        raise Uncovered("the input holds a gradient already, to which grad-cam adds")
    if inputs.ndim != 4 or inputs.device != explainer.device or not torch.is_grad_enabled() or not inputs.is_leaf:
        raise Uncovered("an input that is no image on the model's device, or was computed, or gradients are off")
    refuse_hooks(model, nn.ReLU)
    pays(model, 1)
    answer = answer_of(model, model, inputs)
    if answer.rectifies_outside or len(answer.shape) != 1:
        raise Uncovered("a ReLU runs that is no `nn.ReLU` module, or the output is no table of scores")
    category = call["target_category"]
    if category is not None and not (type(category) is int and 0 <= category < answer.shape[0]):
        raise Uncovered("a target that is no class")
    if category is None and len(inputs) > 1:
        raise Uncovered("no target for several images")
    accept(model, model, inputs, answer, Work(1, gradients=True))
    from xai_fast.methods.guided_backprop import GuidedBackprop  # heavy; what is passed on does without

    values = GuidedBackprop(engine_of(explainer, model)).attribute(inputs[:1].detach(), category)
    # As grad-cam leaves it at the caller's tensor, and adds to it in the next call: to what it returned as well.
    gradient = torch.cat([values.to(inputs), torch.zeros_like(inputs[1:])])
    inputs.requires_grad_().grad = gradient
    return gradient.cpu().numpy()[0].transpose(1, 2, 0)


def factorization(call: Call) -> Any:
    """grad-cam's own."""
    raise Uncovered("its factors may enlarge rounding, and there is one forward to save; xf.DeepFeatureFactorization")
