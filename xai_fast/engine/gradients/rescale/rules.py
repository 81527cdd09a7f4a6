"""Which rule a step has: linear, a quotient of differences, or none, with the reason in words."""

from __future__ import annotations

from collections.abc import Callable

import torch

from xai_fast.core.copies import hooked
from xai_fast.graph.dataflow import is_number, written
from xai_fast.graph.operation import Linear, Rescale
from xai_fast.graph.operations import known_of
from xai_fast.graph.steps import Step

from .dependence import Dependence
from .linear import HandedOn, linear_rule
from .quotients import Elementwise, maximum, softmax
from .rule import Rule

# The arguments of which at most one may depend on the input, where a product is linear in each.
FACTORS: dict[Linear, slice] = {"factors": slice(0, None), "later factors": slice(1, 3)}
# The position and name of the argument that says how others are mixed.
MIXING: dict[Linear, tuple[int, str]] = {"but condition": (0, "condition"), "but weight": (2, "weight")}
NONLINEAR: dict[Rescale, Callable[[Step, int, Dependence], Rule | None]] = {
    "quotient": lambda step, source, dependence: (
        Elementwise(step, source, dependence) if _alike(step, dependence) else None
    ),
    "maximum": maximum,
    "softmax": softmax,
}


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
    rescale = known_of(step.operation).rescale
    return NONLINEAR[rescale](step, source, dependence) if rescale else None


def _linear(step: Step, dependence: Dependence) -> bool:
    """Whether a step is linear, up to a constant, in everything that it reads and that depends on the input."""
    known, every = known_of(step.operation), dependence.changing((step.args, dict(step.kwargs)))
    if step.operation == "getattr":
        return step.args[1] in ("T", "mT")
    if known.linear == "first":
        first = step.args[:1] or tuple(step.kwargs.values())[:1]
        alone = known.content == "first" or len(every) == len(dependence.changing(first))
        return alone and "rounding_mode" not in step.kwargs and _by_running_statistics(step)
    if known.linear in FACTORS:
        return len(dependence.changing((step.args[FACTORS[known.linear]], dict(step.kwargs)))) <= 1
    if known.linear in MIXING:
        position, name = MIXING[known.linear]
        return not dependence.changing((step.args[position : position + 1], step.kwargs.get(name)))
    return known.linear == "all"


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
    if step.operation or len(step.args) != 1 or step.kwargs or written(graph, step):
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
    if is_number(dependence.graph, step.makes):
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
    product = several and (known_of(step.operation).linear in FACTORS or step.operation in ("div", "truediv"))
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
