"""Captum's DeepLIFT, whose rescale rule knows modules only, each once; ours knows every step of the graph.

Not covered: models with anything between input and output that is neither linear nor one of captum's modules, such a
module that runs several times, softmax, `multiply_by_inputs=False`, rules of the user's, baselines from a function,
the deltas of several baselines, additional forward arguments, several inputs.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.models import answer_of, model_of, one_tensor, pays

from .arguments import Asked, asked, baseline_of
from .differentiable import differentiated_later

_EPS = 1e-10  # captum's default, below which the derivative stands in


def deep_lift(call: Call) -> Any:
    """Our method; as captum's, the result can be differentiated."""
    asked_for = _ruled(call, len(one_tensor(call["inputs"])))
    baseline = baseline_of(call["baselines"], asked_for.inputs)
    if isinstance(baseline, Tensor) and len(baseline) > 1:
        raise Uncovered("a baseline of its own for every input")
    from xai_fast.methods.deep_lift import DeepLift  # heavy; what is passed on does without

    method = DeepLift(asked_for.engine, baselines=baseline)
    values = method.attribute(asked_for.inputs.detach(), asked_for.target)
    values = asked_for.returned(differentiated_later(call, values, asked_for.inputs, call["baselines"]))
    if not call["return_convergence_delta"]:
        return values
    given = 0 if call["baselines"] is None else call["baselines"]
    return values, call.explainer.compute_convergence_delta(values, given, call["inputs"], target=call["target"])


def deep_lift_shap(call: Call) -> Any:
    """Our method, for which an input runs forward once and not once per baseline."""
    baselines = call["baselines"]
    baselines = baselines[0] if isinstance(baselines, tuple) and len(baselines) == 1 else baselines
    if not isinstance(baselines, Tensor):
        raise Uncovered("baselines that are no tensor")
    inputs = one_tensor(call["inputs"])
    if baselines.shape[1:] != inputs.shape[1:] or baselines.dtype is not inputs.dtype or len(baselines) < 2:
        raise Uncovered("baselines that do not fit the inputs")
    if baselines.device != inputs.device:
        raise Uncovered("baselines on another device than the inputs")
    if call["return_convergence_delta"]:
        raise Uncovered("`return_convergence_delta` is True")
    asked_for = _ruled(call, len(inputs) * len(baselines))
    from xai_fast.methods.deep_lift import DeepLiftShap  # heavy; what is passed on does without

    method = DeepLiftShap(asked_for.engine, baselines=baselines.detach())
    values = method.attribute(inputs.detach(), asked_for.target)
    return asked_for.returned(differentiated_later(call, values, inputs, baselines))


def _ruled(call: Call, pairs: int) -> Asked:
    """The call in our words, if captum's rule and ours are the same on this model."""
    explainer, inputs = call.explainer, one_tensor(call["inputs"])
    if call["custom_attribution_func"] is not None:
        raise Uncovered("`custom_attribution_func` is given")
    if not explainer.multiplies_by_inputs:
        raise Uncovered("`multiply_by_inputs` is False")
    if explainer.eps != _EPS:
        raise Uncovered("`eps` is not the default")
    model = model_of(explainer.model)
    pays(model, pairs)
    if not answer_of(explainer.model, model, inputs).rescaled:
        raise Uncovered("an operation that captum's rule does not see, or a module that runs several times")
    return asked(call)
