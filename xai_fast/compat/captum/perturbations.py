"""Captum's ablations: windows and segments hidden by the engine, which re-runs only what a change reaches.

Captum's own code over our scores where there are several inputs, rows of features or further arguments, or where maps
of several outputs are asked for. Not covered: a bar of progress.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.worth import Work

from .arguments import SEVERAL, Asked, asked, baseline_of, features_of, number_of, rows_of, tensors_in
from .services import several_at_once, with_scores


def occlusion(call: Call) -> Any:
    """Our method; captum's map is float32 whatever the inputs are."""
    _refuse_weights(call, True)
    at_once = several_at_once(call, rows_of(call))
    work = _work(call, _windows(call))
    asked_for = _by_ourselves(call, work)
    if asked_for is None:
        return call.plain(with_scores(call, work), perturbations_per_eval=at_once)
    shape = tuple(asked_for.inputs.shape[1:])
    if not isinstance(call["sliding_window_shapes"], tuple):
        raise Uncovered("windows that are no tuple")
    window = _extents(call["sliding_window_shapes"], shape)
    stride = _extents(1 if call["strides"] is None else call["strides"], shape)
    for extent, step, available in zip(window, stride, shape, strict=True):
        if not 1 <= extent <= available or step < 1 or (step > extent and extent != available):
            raise Uncovered("windows or strides that do not fit the input")
    return asked_for.returned(_hidden_windows(call, asked_for, window, stride).float())


def feature_ablation(call: Call) -> Any:
    """Our method by segments, or by single elements without a mask; captum's code over our scores for other masks."""
    if set(call.arguments) - set(call.defaults) - {"inputs"}:
        raise Uncovered("arguments that are captum's own")
    _refuse_weights(call, False)
    at_once = several_at_once(call, rows_of(call))
    work = _work(call, features_of(call))
    asked_for = _by_ourselves(call, work)
    if asked_for is None:
        return call.plain(with_scores(call, work), perturbations_per_eval=at_once)
    inputs, mask = asked_for.inputs, call["feature_mask"]
    mask = mask[0] if isinstance(mask, tuple) and len(mask) == 1 else mask
    if mask is None:
        one = (1,) * (inputs.ndim - 1)
        return asked_for.returned(_hidden_windows(call, asked_for, one, one))
    labels = _labels(mask, inputs)
    if labels is None:
        return call.plain(with_scores(call, work), perturbations_per_eval=at_once)
    from xai_fast.methods.feature_ablation import FeatureAblation  # heavy; what is passed on does without

    method = FeatureAblation(asked_for.engine, segments=labels, baseline=baseline_of(call["baselines"], inputs))
    values = method.attribute(inputs.detach(), asked_for.target)
    return asked_for.returned(values.expand_as(inputs).contiguous())


def _refuse_weights(call: Call, usual: bool) -> None:
    """Refuses explainers that divide, or do not divide, by how often each element was hidden, unlike their class."""
    if call.explainer.use_weights is not usual:
        raise Uncovered("`use_weights` is not what the class has")


def _work(call: Call, variants: int) -> Work:
    """What captum asks of the model for so many variants of each input."""
    return Work(rows_of(call) * variants, max(variants // number_of(call, "perturbations_per_eval"), 1))


def _windows(call: Call) -> int:
    """About how many windows captum hides, one after the other."""
    first = tensors_in(call["inputs"])[0]
    shape = tuple(first.shape[1:]) if isinstance(first, Tensor) else ()
    try:
        steps = _extents(1 if call["strides"] is None else call["strides"], shape)
    except Uncovered:
        return 1  # captum refuses them, or they are of several inputs
    return math.prod(max(available // max(step, 1), 1) for available, step in zip(shape, steps, strict=False))


def _by_ourselves(call: Call, work: Work) -> Asked | None:
    """The call in our words where our own method serves it; None where captum's code goes over our scores."""
    try:
        asked_for = asked(call, work)
    except Uncovered as error:
        if str(error) == SEVERAL:
            return None
        raise
    return asked_for if asked_for.given.layout is None else None


def feature_permutation(call: Call) -> Any:
    """Captum's own: other inputs of the batch stand in, which the engine has no method for."""
    raise Uncovered("FeaturePermutation is captum's own")


def _hidden_windows(call: Call, asked_for: Asked, window: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    inputs = asked_for.inputs
    baseline = baseline_of(call["baselines"], inputs)
    if window[0] == inputs.shape[1]:
        window, stride = window[1:], stride[1:]
    from xai_fast.methods.occlusion import Occlusion  # heavy; what is passed on does without

    method = Occlusion(asked_for.engine, window=window, stride=stride, baseline=baseline)
    return method.attribute(inputs.detach(), asked_for.target).expand_as(inputs).contiguous()


def _extents(given: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(given, tuple) and len(given) == 1 and isinstance(given[0], tuple | int):
        given = given[0]
    extents = (given,) * len(shape) if type(given) is int else given
    if not isinstance(extents, tuple) or len(extents) != len(shape) or not all(type(n) is int for n in extents):
        raise Uncovered("windows or strides that do not fit the input")
    return extents


def _labels(mask: Any, inputs: Tensor) -> Tensor | None:
    """The mask as labels of positions, (*S,) or (N, *S); None where channels differ."""
    if not isinstance(mask, Tensor) or mask.is_floating_point() or mask.dtype is torch.bool:
        raise Uncovered("a feature mask that holds no ids")
    try:
        wide = mask.detach().expand(len(mask) if mask.ndim == inputs.ndim else 1, *inputs.shape[1:])
    except RuntimeError:
        raise Uncovered("a feature mask that does not fit the inputs") from None
    if len(wide) not in (1, len(inputs)):
        raise Uncovered("a feature mask that does not fit the inputs")
    if not bool((wide == wide[:, :1]).all()):
        return None
    labels = torch.unique(wide[:, 0], return_inverse=True)[1]
    return labels[0] if len(labels) == 1 else labels
