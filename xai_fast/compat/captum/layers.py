"""Captum's methods at one layer: ours at the layer's own size.

Not covered: several layers, a layer's input, a layer that runs several times or returns anything but (N, C, h, w) (for
integrated gradients: a tensor), `grad_kwargs`, maps per channel, several devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.models import answer_of, model_of
from xai_fast.compat.worth import Work, pays

from .arguments import (
    Asked,
    asked,
    baselines_of,
    convergence_delta,
    differentiable,
    given_of,
    rows_of,
    tensors_in,
)
from .differentiable import differentiated_later
from .gradients import QUADRATURES


def layer_grad_cam(call: Call) -> Any:
    """Our method; as captum's, the result can be differentiated."""
    if not call["attr_dim_summation"]:
        raise Uncovered("`attr_dim_summation` is False")
    layer, asked_for = _at_layer(call, Work(rows_of(call), gradients=True), light=True)
    from xai_fast.methods.cam.gradcam import GradCAM  # heavy; what is passed on does without

    method = GradCAM(asked_for.engine, layer=layer, grid=_grid(asked_for), signed=not call["relu_attributions"])
    values = method.attribute(asked_for.inputs.detach(), asked_for.target, resolution="native")
    values = values.reshape(len(values), 1, *asked_for.answer.layer_shape[1:])
    return differentiated_later(call, values, *tensors_in(call["inputs"]))


def layer_activation(call: Call) -> Any:
    """Our method, which runs the model as far as the layer."""
    layer, asked_for = _at_layer(call, Work(rows_of(call)), light=True, target=False)
    from xai_fast.methods.filter_activation import FilterActivation  # heavy; what is passed on does without

    method = FilterActivation(asked_for.engine, layer=layer, grid=_grid(asked_for))
    values = method.attribute(asked_for.inputs.detach(), resolution="native")
    return values.reshape(len(values), *asked_for.answer.layer_shape)


def layer_integrated_gradients(call: Call) -> Any:
    """Our method, between what the layer returns for the baseline and for the input."""
    explainer = call.explainer
    if type(call["n_steps"]) is not int or call["n_steps"] < 1 or call["method"] not in QUADRATURES:
        raise Uncovered("a quadrature that is captum's own")
    layer, asked_for = _at_layer(call, Work(rows_of(call) * call["n_steps"], gradients=True), light=False)
    inputs = asked_for.inputs
    baseline = baselines_of(call, asked_for)
    chunk = call["internal_batch_size"]
    if not explainer.multiplies_by_inputs:
        raise Uncovered("`multiply_by_inputs` is False")
    if chunk is not None and (type(chunk) is not int or chunk < len(inputs)):
        raise Uncovered("`internal_batch_size` is below the number of inputs")
    if inputs.dtype is not torch.float32 or differentiable(*tensors_in(call["inputs"]), *tensors_in(call["baselines"])):
        raise Uncovered("a result of captum's own type")
    from xai_fast.methods.integrated_gradients import IntegratedGradients  # heavy; what is passed on does without

    method = IntegratedGradients(
        asked_for.engine,
        layer=layer,
        n_steps=call["n_steps"],
        quadrature=QUADRATURES[call["method"]],
        baseline=baseline,
    )
    values = method.attribute(inputs.detach(), asked_for.target)
    if not call["return_convergence_delta"]:
        return values
    return values, convergence_delta(call, values)


def _at_layer(call: Call, work: Work, *, light: bool, target: bool = True) -> tuple[nn.Module, Asked]:
    """The layer, and the call in our words."""
    explainer = call.explainer
    layer = explainer.layer
    if not isinstance(layer, nn.Module):
        raise Uncovered("several layers")
    if call["attribute_to_layer_input"]:
        raise Uncovered("`attribute_to_layer_input` is True")
    if call["grad_kwargs"] is not None:
        raise Uncovered("`grad_kwargs` are given")
    if explainer.device_ids is not None:
        raise Uncovered("the model runs on several devices")
    if light:
        pays(model_of(explainer.forward_func), rows_of(call))
    found = given_of(call)
    shapes = answer_of(found.forward, model_of(found.forward), found.batch, layer).layer
    if len(shapes) != 1 or shapes[0] is None:
        raise Uncovered("a layer that does not return one tensor once")
    if light and len(shapes[0]) != 3:
        raise Uncovered("a layer that does not return (N, C, h, w)")
    return layer, asked(call, work, layer) if target else _without_target(call, work, layer)


def _without_target(call: Call, work: Work, layer: nn.Module) -> Asked:
    """The call of a method that is about no class."""
    about_any = Call(call.explainer, {**call.arguments, "target": 0}, call.original, call.defaults)
    return asked(about_any, work, layer)


def _grid(asked_for: Asked) -> Callable[[torch.Tensor], torch.Tensor]:
    """What the layer returns as it is, or, for a batch that has no plane to lay it over, in a row."""
    return _as_it_is if asked_for.given.layout is None else _in_a_row


def _as_it_is(activation: torch.Tensor) -> torch.Tensor:
    return activation


def _in_a_row(activation: torch.Tensor) -> torch.Tensor:
    return activation.flatten(2)
