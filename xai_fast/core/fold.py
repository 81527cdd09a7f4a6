"""Fold batch normalisation into the convolution before it, where a graph trace proves that nothing looks between.

The trace only finds the pairs. The folded weights go into the module tree and the model's own `forward` keeps running,
so hooks, dictionaries and Python in `forward` behave as before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

_PARTNER = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.Linear: nn.BatchNorm1d,
}


def fold_batchnorms(model: nn.Module, barriers: Collection[nn.Module]) -> tuple[int, list[str]]:
    """Folds in place, in eval mode's meaning; returns how many were folded and why the rest of the model resisted.

    Args:
        model: our own copy; its weights are replaced.
        barriers: modules whose output somebody reads (anchors, hooked modules). Neither half of a pair may be one, and
            no pair reaches across the border of one.
    """
    folded, refusals = 0, []
    for scope, graph in _graphs(model, frozenset(map(id, barriers)), "the model", refusals):
        for convolution, norm in _pairs(scope, graph, barriers):
            weight, bias = _folded(convolution, norm)
            convolution.weight = nn.Parameter(weight, requires_grad=False)
            convolution.bias = nn.Parameter(bias, requires_grad=False)
            _replace(model, norm, nn.Identity())
            folded += 1
    return folded, refusals


class _Tracer(fx.Tracer):
    """Stops at barriers, so that what is inside one is traced on its own."""

    def __init__(self, barriers: frozenset[int]) -> None:
        super().__init__()
        self._barriers = barriers

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return id(m) in self._barriers or super().is_leaf_module(m, module_qualified_name)


def _graphs(
    scope: nn.Module, barriers: frozenset[int], name: str, refusals: list[str]
) -> Iterator[tuple[nn.Module, fx.Graph]]:
    """The graph of `scope`, then of every barrier inside; where a scope cannot be traced, of its children instead."""
    try:
        graph = _Tracer(barriers).trace(scope)
    except Exception as error:  # the user's forward may raise anything when it meets a proxy
        refusals.append(f"{name} ({type(scope).__name__}): {_first_line(error)}")
        inner = list(scope.named_children())
    else:
        yield scope, graph
        leaves = {str(node.target) for node in graph.nodes if node.op == "call_module"}
        inner = [(leaf, scope.get_submodule(leaf)) for leaf in sorted(leaves)]
        inner = [(leaf, module) for leaf, module in inner if id(module) in barriers]
    for child_name, child in inner:
        if next(child.children(), None) is not None:
            yield from _graphs(child, barriers, child_name, refusals)


def _pairs(scope: nn.Module, graph: fx.Graph, barriers: Collection[nn.Module]) -> Iterator[tuple[Any, Any]]:
    modules = {node: scope.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"}
    calls = Counter(map(id, modules.values()))
    watched = set(map(id, barriers))
    for node, norm in modules.items():
        source = node.args[0] if len(node.args) == 1 and not node.kwargs else None
        if not isinstance(source, fx.Node) or source not in modules:
            continue
        before = modules[source]
        once = calls[id(before)] == calls[id(norm)] == 1 and list(source.users) == [node]
        fits = _PARTNER.get(type(before)) is type(norm) and norm.running_var is not None
        if once and fits and not {id(before), id(norm)} & watched:
            yield before, norm


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
    weight = convolution.weight.double() * scale.view(-1, *[1] * (convolution.weight.ndim - 1))
    return weight.to(convolution.weight.dtype), bias.to(convolution.weight.dtype)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
