"""Which rule a step has: linear, a quotient of differences, or none, with the reason in words."""

from __future__ import annotations

import torch

from xai_fast.core.copies import hooked
from xai_fast.graph.kinds import Kind
from xai_fast.graph.steps import Step

from .dependence import Dependence
from .linear import HandedOn, linear_rule
from .quotients import Elementwise, maximum, softmax
from .rule import Rule

# Linear in all tensors together.
_SUMS = {"add", "sub", "rsub", "cat", "concat", "concatenate", "stack"}
# Linear in the first argument, where nothing else depends on the input.
_FIRST = {
    *("div", "truediv", "linear", "batch_norm", "mean", "sum", "cumsum", "interpolate", "upsample", "pad"),
    *("identity", "contiguous", "clone", "to", "float", "double", "type_as", "positive", "alias", "neg"),
    *("flatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "unflatten", "expand", "t", "T"),
    *("chunk", "split", "tensor_split", "unbind", "getitem", "select", "narrow", "slice", "flip", "roll", "mT"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "movedim", "moveaxis", "swapaxes", "repeat", "tile"),
    *("view_as", "expand_as", "index_select", "gather", "unfold", "fold", "stochastic_depth", "alpha_dropout"),
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout"),
    *(f"{name}{axes}d" for name in ("conv", "conv_transpose", "avg_pool", "adaptive_avg_pool") for axes in (1, 2, 3)),
}
# Linear in each of two factors: those arguments of which at most one may depend on the input.
_FACTORS = {
    **dict.fromkeys(("mul", "matmul", "bmm", "einsum"), slice(0, None)),
    **dict.fromkeys(("addmm", "baddbmm", "addcmul"), slice(1, 3)),
}
# Linear in what it mixes, but not in what says how: the position and name of the latter.
_MIXERS = {"where": (0, "condition"), "lerp": (2, "weight")}
# Elementwise where only one tensor depends on the input.
_OF_ONE = {"mul", "div", "truediv", "pow", "maximum", "minimum", "prelu"}
_MAXIMA = {f"{kind}max_pool{axes}d" for kind in ("", "adaptive_") for axes in (1, 2, 3)}


def rule_of(step: Step, dependence: Dependence) -> Rule | str:
    """The rule of a live step; or why there is none, naming the step."""
    return _rowless(step, dependence) or _rule(step, dependence) or _no_rule(step, dependence)


def _rule(step: Step, dependence: Dependence) -> Rule | None:
    sources = {*dependence.changing((step.args, dict(step.kwargs)))}
    if _hands_on(step, dependence):
        return HandedOn(step)
    if _linear(step, dependence):
        return linear_rule(step, dependence)
    if len(sources) > 1:
        return None
    (source,) = sources
    if step.operation in _MAXIMA:
        return maximum(step, source, dependence)
    if step.operation in ("softmax", "log_softmax"):
        return softmax(step, source, dependence)
    if not _alike(step, dependence):
        return None
    curved = step.kind is Kind.ELEMENTWISE and step.operation != "detach"
    return Elementwise(step, source, dependence) if curved or step.operation in _OF_ONE else None


def _linear(step: Step, dependence: Dependence) -> bool:
    """Whether a step is linear, up to a constant, in everything that it reads and that depends on the input."""
    operation, every = step.operation, dependence.changing((step.args, dict(step.kwargs)))
    if operation in _SUMS or (operation == "getattr" and step.args[1] in ("T", "mT")):
        return True
    if operation in _FIRST:
        first = step.args[:1] or tuple(step.kwargs.values())[:1]
        lending = operation in ("view_as", "expand_as", "type_as", "to")
        alone = lending or len(every) == len(dependence.changing(first))
        return alone and "rounding_mode" not in step.kwargs and _by_running_statistics(step)
    if operation in _FACTORS:
        others = dependence.changing((step.args[_FACTORS[operation]], dict(step.kwargs)))
        return len(others) <= 1
    if operation in _MIXERS:
        position, name = _MIXERS[operation]
        return not dependence.changing((step.args[position : position + 1], step.kwargs.get(name)))
    return False


def _by_running_statistics(step: Step) -> bool:
    """Whether a batch normalisation takes its statistics from training; true of every other step."""
    if step.operation != "batch_norm":
        return True
    module = step.module
    if module is not None:
        return not module.training and module.running_var is not None
    given = dict(zip(("input", "mean", "var", "weight", "bias", "training"), step.args, strict=False))
    return {**given, **step.kwargs}.get("training", False) is False


def _hands_on(step: Step, dependence: Dependence) -> bool:
    """Whether a step of unknown formula was seen to return the very tensor that it read."""
    graph = dependence.graph
    if step.operation or len(step.args) != 1 or step.kwargs or graph.writes.get(step.makes):
        return False
    read = step.reads[0]
    return graph.traits[read].shape is not None and graph.traits[read] == graph.traits[step.makes]


def _alike(step: Step, dependence: Dependence) -> bool:
    """Whether the output has the shape and dtype of everything that it is computed from."""
    traits = dependence.graph.traits
    made = traits[step.makes]
    read = [traits[number] for number in dependence.changing((step.args, dict(step.kwargs)))]
    return all(trait.shape == made.shape and trait.dtype == made.dtype for trait in read)


def _rowless(step: Step, dependence: Dependence) -> str | None:
    """Why a step cannot be run backwards row by row, or not at all."""
    trait = dependence.graph.traits[step.makes]
    if trait.shape is None and trait.group == -1:
        return f"{dependence.described(step)} makes a number from what depends on the input"
    if trait.shape is not None and not trait.batched:
        return f"rows cannot be told apart in what {dependence.described(step)} returns"
    if trait.dtype is not None and not trait.dtype.is_floating_point:
        return f"the rescale rule does not exist for {dependence.described(step)}, which returns {_name(trait.dtype)}"
    return None


def _no_rule(step: Step, dependence: Dependence) -> str:
    if step.module is not None and hooked(step.module) and not step.operation:
        return f"the rescale rule cannot look past the hook on {step.label!r} into it"
    if not step.operation:
        return f"the rescale rule needs a formula, and none is known for {dependence.described(step)}"
    several = len(dependence.changing((step.args, dict(step.kwargs)))) > 1
    product = several and (step.operation in _FACTORS or step.operation in ("div", "truediv"))
    if product:
        thing = "quotient" if step.operation.endswith("div") else "product"
        where = dependence.described(step).removeprefix(step.operation).strip()
        what = f"the {thing} {where} ({step.operation} of two values that both depend on the input)"
    elif several:
        what = f"{dependence.described(step)} of values that all depend on the input"
    else:
        what = dependence.described(step)
    return f"the rescale rule does not exist for {what}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
