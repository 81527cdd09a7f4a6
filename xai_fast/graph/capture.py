"""Capture a module's forward as steps, by symbolic tracing."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from .operation import Kind
from .operations import known_of, operation_of
from .reasons import first_line
from .sizes import plain
from .steps import INPUT, Graph, Returned, Step, Value, mapped
from .tracing import Tracer

# Libraries whose leaf modules do nothing but compute, so that tracing may look inside.
_PLAIN_LIBRARIES = ("torch.", "torchvision.", "timm.", "transformers.", "segmentation_models_pytorch.", "monai.")
# Modules of theirs that compute with their layers' weights and never call the layers: one step each is faster.
_WHOLE = {"ShiftedWindowAttention", "ShiftedWindowAttentionV2", "ShiftedWindowAttention3d"}
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential, nn.ParameterList, nn.ParameterDict)


class CaptureError(Exception):
    """A forward cannot be written down as steps; the message says why."""


def trace(scope: nn.Module, barriers: frozenset[int], example: Tensor | None = None) -> Graph:
    """The forward of `scope` by symbolic tracing, one step per leaf module, function and method.

    Modules in `barriers` (by id) and the user's own leaf modules stay single calls, so that hooks fire and whatever
    else they do is done. Two rows that it takes, in `example`, let it branch on sizes.

    Raises:
        CaptureError: the forward branches on data, takes several inputs, or does what cannot be traced.
    """
    tracer = Tracer(scope, _single, barriers, example)
    try:
        try:
            output = tracer.follow()
        except TypeError:  # of a function that wants sizes themselves
            if example is None:
                raise
            tracer = Tracer(scope, _single, barriers, example, fixed=True)
            output = tracer.follow()
    except Exception as error:  # the user's forward may raise anything when it meets a stand-in
        raise CaptureError(first_line(error)) from None
    if tracer.autocasts:
        raise CaptureError("a part of its forward runs under autocast")
    return _graph(scope, tracer.graph, output, tracer.returned, barriers, gradient_gaps=tracer.gradient_gaps)


def _single(module: nn.Module) -> bool:
    """Whether a module stays a single call: torch's own layers, scripted ones, and leaves of the user's."""
    if isinstance(module, _CONTAINERS):
        return False
    if type(module).__name__ in _WHOLE and type(module).__module__.startswith("torchvision."):
        return True
    ready = type(module).__module__.startswith(("torch.nn.", "torch.ao.nn."))
    return ready or isinstance(module, torch.jit.ScriptModule) or is_own_leaf(module)


def is_own_leaf(module: nn.Module) -> bool:
    """Whether a module without children is the user's own, which may do more than compute: count, print, collect."""
    return next(module.children(), None) is None and not type(module).__module__.startswith(_PLAIN_LIBRARIES)


def _graph(
    scope: nn.Module,
    graph: fx.Graph,
    output: Any,
    returned: dict[str, list[tuple[fx.Node, fx.Node] | None]],
    barriers: frozenset[int],
    *,
    gradient_gaps: bool,
) -> Graph:
    """An fx graph as steps."""
    numbers = _numbers(graph)

    def value(node: fx.Node) -> Any:
        return Value(numbers[node])

    steps: list[Step] = []
    constants: dict[int, tuple[weakref.ref[nn.Module], str]] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            path, _, name = str(node.target).rpartition(".")
            constants[numbers[node]] = (weakref.ref(scope.get_submodule(path)), name)
        elif node.op not in ("placeholder", "output"):
            steps.append(_step(scope, node, numbers[node], value, barriers))
    anchors = {
        path: [Returned(numbers[pair[0]], numbers[pair[1]]) if pair is not None else None for pair in pairs]
        for path, pairs in returned.items()
    }
    output = mapped(lambda leaf: value(leaf) if isinstance(leaf, fx.Node) else leaf, output)
    return Graph(steps, output, anchors, constants, gradient_gaps)


def _step(
    scope: nn.Module, node: fx.Node, number: int, value: Callable[[fx.Node], Any], barriers: frozenset[int]
) -> Step:
    args, kwargs = fx.map_arg(node.args, value), fx.map_arg(node.kwargs, value)
    if node.op == "call_module":
        call: Any = scope.get_submodule(str(node.target))
        operation = "" if id(call) in barriers else operation_of(call)
    elif node.op == "call_method":
        call, operation = _Method(str(node.target)), operation_of(str(node.target))
    else:
        call, operation = node.target, operation_of(node.target)  # type: ignore[arg-type]
    if operation == "getattr":
        operation = "shape" if args[1:] == ("shape",) else "getattr"
    kind = known_of(operation).kind if operation else Kind.UNKNOWN
    return Step(number, call, plain(args), plain(kwargs), operation, kind, str(node.target))


class _Method:
    """Stands in for a method, so that every step is a call."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, owner: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(owner, self.__name__)(*args, **kwargs)

    def __repr__(self) -> str:
        return f".{self.__name__}"


def _numbers(graph: fx.Graph) -> dict[fx.Node, int]:
    """A number per node; the first node is the model's input."""
    return {node: INPUT + position for position, node in enumerate(graph.nodes)}
