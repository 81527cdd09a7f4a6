"""Captum's DeepLIFT, whose rescale rule knows modules only, each once; ours knows every step of the graph.

Not covered: models with anything between input and output that is neither linear nor one of captum's modules, such a
module that runs several times, softmax, `multiply_by_inputs=False`, rules of the user's, baselines from a function,
the deltas of several baselines, further arguments that have a row per input, backward hooks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.hooks import refuse_backward_hooks
from xai_fast.compat.models import model_of
from xai_fast.compat.worth import Work, pays

from .arguments import (
    Asked,
    asked,
    baselines_of,
    convergence_delta,
    refuse_own_gradients,
    rows_of,
    tensors_in,
)
from .differentiable import differentiated_later

_EPS = 1e-10  # captum's default, below which the derivative stands in


def deep_lift(call: Call) -> Any:
    """Our method; as captum's, the result can be differentiated."""
    asked_for = _ruled(call, rows_of(call))
    baseline = baselines_of(call, asked_for)
    if isinstance(baseline, Tensor) and len(baseline) > 1:
        raise Uncovered("a baseline of its own for every input")
    from xai_fast.methods.deep_lift import DeepLift  # heavy; what is passed on does without

    method = DeepLift(asked_for.engine, baselines=baseline)
    values = method.attribute(asked_for.inputs.detach(), asked_for.target)
    values = _returned(call, asked_for, values)
    return (values, convergence_delta(call, values)) if call["return_convergence_delta"] else values


def deep_lift_shap(call: Call) -> Any:
    """Our method, for which an input runs forward once and not once per baseline."""
    baselines, inputs = tensors_in(call["baselines"]), tensors_in(call["inputs"])
    if not all(isinstance(one, Tensor) for one in baselines):
        raise Uncovered("baselines that are no tensors")
    if call["return_convergence_delta"]:
        raise Uncovered("`return_convergence_delta` is True")
    if len(baselines) != len(inputs) or len({len(one) for one in baselines}) > 1 or len(baselines[0]) < 2:
        raise Uncovered("baselines that do not fit the inputs")
    asked_for = _ruled(call, rows_of(call) * len(baselines[0]))
    for baseline, one in zip(baselines, inputs, strict=True):
        if baseline.shape[1:] != one.shape[1:] or baseline.dtype is not one.dtype or baseline.device != one.device:
            raise Uncovered("baselines that do not fit the inputs")
    layout = asked_for.given.layout
    joined = baselines[0] if layout is None else layout.batch(baselines)
    from xai_fast.methods.deep_lift import DeepLiftShap  # heavy; what is passed on does without

    method = DeepLiftShap(asked_for.engine, baselines=joined.detach())
    values = method.attribute(asked_for.inputs.detach(), asked_for.target)
    return _returned(call, asked_for, values)


def _returned(call: Call, asked_for: Asked, values: Tensor) -> Any:
    """As captum returns it, every map where captum's can be differentiated."""
    if asked_for.given.layout is None:  # captum's product lies in memory as the inputs do
        values = torch.empty_like(asked_for.inputs).copy_(values)
    values, leaves = asked_for.returned(values), (*tensors_in(call["inputs"]), *tensors_in(call["baselines"]))
    if not isinstance(values, tuple):
        return differentiated_later(call, values, *leaves)
    return tuple(differentiated_later(call, one, *leaves, part=at) for at, one in enumerate(values))


def _ruled(call: Call, pairs: int) -> Asked:
    """The call in our words, if captum's rule and ours are the same on this model."""
    explainer = call.explainer
    refuse_own_gradients(explainer)
    if call["custom_attribution_func"] is not None:
        raise Uncovered("`custom_attribution_func` is given")
    if not explainer.multiplies_by_inputs:
        raise Uncovered("`multiply_by_inputs` is False")
    if explainer.eps != _EPS:
        raise Uncovered("`eps` is not the default")
    pays(model_of(explainer.model), pairs)
    asked_for = asked(call, Work(2 * pairs, gradients=True))
    layout = asked_for.given.layout
    if layout is not None and sum(one is not None for one in layout.shapes) > len(tensors_in(call["inputs"])):
        raise Uncovered("a further argument that has a row per input")
    if not asked_for.answer.rescaled:
        raise Uncovered("an operation that captum's rule does not see, or a module that runs several times")
    refuse_backward_hooks(explainer.model)
    return asked_for
