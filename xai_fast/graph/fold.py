"""Fold batch normalisation into the convolution before it, where the captured steps prove that nothing looks between.

The folded weights go into the module tree as well as into the steps, so the model's own `forward` keeps meaning the
same: gradients are taken through it, and hooks, dictionaries and Python in it behave as before.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dataflow import readers
from .operation import Kind
from .steps import Graph, Step, Value, reading, renamed

_AT_ONCE = 1 << 16  # weights whose float64 stays in the cache
_PARTNER = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.Linear: nn.BatchNorm1d,
}


def fold_batchnorms(model: nn.Module, graph: Graph, anchors: Collection[str]) -> int:
    """Folds in place, in eval mode's meaning; returns how many were folded.

    Args:
        model: our own copy; its weights are replaced.
        graph: of `model` or of a module inside it.
        anchors: paths, in the graph, of layers whose output somebody reads. Neither half of a pair may be one, and no
            pair reaches across the border of one.
    """
    read, looked_at = graph.returned_by(anchors), _modules_at(model, anchors)
    folded = 0
    places = _places(model)
    for first, second, norm in list(_pairs(graph, read)):
        if id(norm) in looked_at:
            continue
        convolution, inside = first.module, second.module is None
        weight, bias = _folded(convolution, norm)
        convolution.weight = nn.Parameter(weight, requires_grad=False)
        convolution.bias = nn.Parameter(bias, requires_grad=False)
        if inside:
            _neutralise(norm)
        else:
            identity = nn.Identity()
            for parent, name in places.get(id(norm), ()):
                setattr(parent, name, identity)
        substitute(graph, second, first.makes)
        folded += 1
    return folded


def drop_identities(graph: Graph, anchors: Collection[str]) -> None:
    """Takes out the steps that return what they read: identities, and dropout in eval mode."""
    read = graph.returned_by(anchors)
    for makes in [step.makes for step in graph.steps]:
        # Looked up anew: a step that reads what was taken out before has been replaced by one that reads past it.
        step = graph.step_of(makes)
        assert step is not None
        module = step.module
        does_nothing = step.operation == "identity" or (step.operation == "dropout" and module is not None)
        if does_nothing and len(step.reads) == 1 and step.makes not in read:
            substitute(graph, step, step.reads[0])


def substitute(graph: Graph, step: Step, value: int) -> None:
    """Removes a step; whoever read what it made reads `value` instead."""
    graph.steps = [
        reading(other, step.makes, value) if step.makes in other.reads else other
        for other in graph.steps
        if other.makes != step.makes
    ]
    graph.output = renamed(graph.output, step.makes, value)
    for path, calls in graph.anchors.items():
        graph.anchors[path] = [
            replace(call, value=value) if call is not None and call.value == step.makes else call for call in calls
        ]


def _pairs(graph: Graph, read: Collection[int]) -> Iterator[tuple[Any, Step, Any]]:
    """A convolution's step, the step of a normalisation that alone reads it, and the module that holds its numbers."""
    calls = Counter(id(step.module) for step in graph.steps if step.module is not None)
    users = readers(graph.steps)
    made = {step.makes: step for step in graph.steps}
    for position, second in enumerate(graph.steps):
        before = made.get(second.reads[0]) if second.reads and second.kind is not Kind.UNKNOWN else None
        if before is None or before.module is None or before.kind is Kind.UNKNOWN:
            continue  # a module with hooks is of unknown kind
        norm = second.module if second.module is not None else _norm_around(graph, second)
        partner = _PARTNER.get(type(before.module))
        if norm is None or partner is None or getattr(norm, "running_var", None) is None:
            continue
        once = calls[id(before.module)] == 1 >= calls[id(norm)] and users[before.makes] == [position]
        fits = type(norm) is partner if second.module is not None else isinstance(norm, partner)
        returned = before.makes in graph.results
        if once and fits and not returned and not {before.makes, second.makes} & set(read):
            yield before, second, norm


def _norm_around(graph: Graph, step: Step) -> nn.Module | None:
    """The module whose own forward normalises by this function, once, with its numbers: timm's, with an activation."""
    if step.operation != "batch_norm" or not isinstance(step.args[0], Value):
        return None
    try:
        given = inspect.signature(F.batch_norm).bind(*step.args, **step.kwargs)
    except TypeError:
        return None
    given.apply_defaults()
    owners = [graph.constants.get(number, (None, ""))[0] for number in step.reads[1:]]
    norm = None if not owners or owners[0] is None else owners[0]()
    if norm is None or given.arguments["training"] is not False or given.arguments["eps"] != getattr(norm, "eps", None):
        return None
    for name in ("running_mean", "running_var", "weight", "bias"):
        value = given.arguments[name]
        place = graph.constants.get(value.number) if isinstance(value, Value) else None
        own = place is not None and place[0]() is norm and place[1] == name
        if not own and not (value is None and getattr(norm, name, None) is None):
            return None
    numbers = {n for n, (owner, _) in graph.constants.items() if owner() is norm}
    elsewhere = any(numbers & set(other.reads) for other in graph.steps if other is not step)
    return None if elsewhere or numbers & set(graph.results) else norm


def _modules_at(model: nn.Module, anchors: Collection[str]) -> set[int]:
    """The modules that may be meant by paths in some part of the model."""
    ends = tuple(f".{path}" for path in anchors)
    return {id(module) for name, module in model.named_modules() if f".{name}".endswith(ends)}


@torch.no_grad()
def _neutralise(norm: nn.Module) -> None:
    """Lets a normalisation return what it is given, whatever else the module's forward does."""
    epsilon = float(norm.eps)  # type: ignore[arg-type]
    for name, value in (("running_mean", 0.0), ("running_var", 1.0 - epsilon), ("weight", 1.0), ("bias", 0.0)):
        numbers = getattr(norm, name)
        if isinstance(numbers, nn.Parameter):
            setattr(norm, name, nn.Parameter(torch.full_like(numbers, value), requires_grad=False))
        elif numbers is not None:
            setattr(norm, name, torch.full_like(numbers, value))


@torch.no_grad()
def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the pair as one layer, worked out in float64 and rounded once."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch normalisation without running statistics cannot be folded")
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = -norm.running_mean.double()
    if convolution.bias is not None:
        bias = bias + convolution.bias.double()
    bias = bias * scale
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    weight, rows = torch.empty_like(convolution.weight), max(1, _AT_ONCE // max(1, convolution.weight[0].numel()))
    scale = scale.view(-1, *[1] * (weight.ndim - 1))
    for start in range(0, len(weight), rows):
        some = slice(start, start + rows)
        weight[some] = convolution.weight[some].double() * scale[some]
    return weight, bias.to(convolution.weight.dtype)


def _places(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Where every module lies, by id: its parents, and under which names."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is not None:
                places.setdefault(id(child), []).append((parent, name))
    return places
