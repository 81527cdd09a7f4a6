"""Capture a module's forward as steps: by symbolic tracing, by `torch.export` where that fails."""

from __future__ import annotations

import contextlib
import logging
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_unflatten

from xai_fast.core.verify import first_line

from .kinds import Kind, kind_of, operation_of
from .steps import INPUT, Graph, Returned, Step, Value

# Libraries whose leaf modules do nothing but compute, so that tracing may look inside.
_PLAIN_LIBRARIES = ("torch.", "torchvision.", "timm.")


class CaptureError(Exception):
    """A forward cannot be written down as steps; the message says why."""


def trace(scope: nn.Module, barriers: frozenset[int]) -> Graph:
    """The forward of `scope` by symbolic tracing, one step per leaf module, function and method.

    Modules in `barriers` (by id) and the user's own leaf modules stay single calls, so that hooks fire and whatever
    else they do is done.

    Raises:
        CaptureError: the forward branches on data, takes several inputs, or does what cannot be traced.
    """
    tracer = _Tracer(barriers)
    try:
        graph = tracer.trace(scope)
    except Exception as error:  # the user's forward may raise anything when it meets a proxy
        raise CaptureError(first_line(error)) from None
    if tracer.autocasts:
        raise CaptureError("a part of its forward runs under autocast")
    # A trace hands out each node once, so the nodes that modules returned are those of the graph.
    return _graph(scope, graph, tracer.returned, barriers, gradient_gaps=tracer.gradient_gaps)


def export(scope: nn.Module, two_rows: Tensor) -> Graph:
    """The forward of `scope` by `torch.export` with a free number of rows: follows Python that tracing cannot.

    Takes seconds. Hooks would be written down with the rest, so the caller exports only what has none.

    Raises:
        CaptureError: as `trace`.
    """
    rows = {0: torch.export.Dim.AUTO}
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(scope, (two_rows,), dynamic_shapes=(rows,), strict=False)
            module = program.module()
    except Exception as error:  # as above
        raise CaptureError(first_line(error)) from None
    assert isinstance(module, fx.GraphModule)
    for node in [node for node in module.graph.nodes if node.op == "call_module"]:
        module.graph.erase_node(node)  # a check of the input's shape, which is ours to make
    graph = _graph(module, module.graph, {}, frozenset(), gradient_gaps=_sets_grad_mode(module.graph))
    graph.anchors = _exported_anchors(module.graph, _numbers(module.graph))
    # An exported graph returns its tensors side by side; how they nest is known to its code generator alone.
    graph.output = tree_unflatten(list(graph.output), module.graph._codegen.pytree_info.out_spec)  # type: ignore[attr-defined]
    graph.owner = module  # constants are looked up in it
    return graph


class _Tracer(fx.Tracer):
    """Notes what every module returned, and stretches of the forward that run in another mode."""

    def __init__(self, barriers: frozenset[int]) -> None:
        super().__init__()
        self._barriers = barriers
        self.returned: dict[str, list[tuple[fx.Node, fx.Node] | None]] = {}
        self.gradient_gaps = False
        self.autocasts = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if id(m) in self._barriers or super().is_leaf_module(m, module_qualified_name):
            return True
        return is_own_leaf(m)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        path, existing = self.path_of_module(m), set(self.graph.nodes)
        returned = super().call_module(m, forward, args, kwargs)
        nodes = [leaf.node for leaf in tree_leaves(returned) if isinstance(leaf, fx.Proxy)][:1]
        # What a module was given and hands on is read by others under the same name, and not because of the module.
        fresh = [(node, next(iter(reversed(self.graph.nodes)))) for node in nodes if node not in existing]
        self.returned.setdefault(path, []).append(fresh[0] if fresh else None)
        return returned

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        self.gradient_gaps |= not torch.is_grad_enabled()
        self.autocasts |= torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
        return super().create_node(*args, **kwargs)

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        with torch.enable_grad():
            return super().trace(root, concrete_args)


def is_own_leaf(module: nn.Module) -> bool:
    """Whether a module without children is the user's own, which may do more than compute: count, print, collect."""
    return next(module.children(), None) is None and not type(module).__module__.startswith(_PLAIN_LIBRARIES)


def _graph(
    scope: nn.Module,
    graph: fx.Graph,
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
    output: Any = None
    constants: dict[int, tuple[weakref.ref[nn.Module], str]] = {}
    fixed = _defaults(graph, numbers)
    for node in graph.nodes:
        if node.op == "get_attr":
            path, _, name = str(node.target).rpartition(".")
            constants[numbers[node]] = (weakref.ref(scope.get_submodule(path)), name)
        elif node.op == "output":
            output = fx.map_arg(node.args[0], value)
        elif node.op != "placeholder":
            steps.append(_step(scope, node, numbers[node], value, barriers))
    anchors = {
        path: [Returned(numbers[pair[0]], numbers[pair[1]]) if pair is not None else None for pair in pairs]
        for path, pairs in returned.items()
    }
    return Graph(steps, _plain(output), anchors, constants, gradient_gaps, fixed=fixed)


def _defaults(graph: fx.Graph, numbers: dict[fx.Node, int]) -> dict[int, Any]:
    """The defaults of what a forward takes beside its input.

    Raises:
        CaptureError: it takes no input, or several without a default.
    """
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    if not placeholders:
        raise CaptureError("its forward takes no input")
    rest = placeholders[1:]
    if any(str(node.target).startswith("*") for node in placeholders) or not all(node.args for node in rest):
        raise CaptureError("its forward takes several inputs")
    return {numbers[node]: node.args[0] for node in rest}


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
    kind = kind_of(operation) if operation else Kind.UNKNOWN
    return Step(number, call, _plain(args), _plain(kwargs), operation, kind, str(node.target))


class _Method:
    """Stands in for a method, so that every step is a call."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, owner: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(owner, self.__name__)(*args, **kwargs)

    def __repr__(self) -> str:
        return f".{self.__name__}"


def _numbers(graph: fx.Graph) -> dict[fx.Node, int]:
    """A number per node; the first placeholder is the model's input."""
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    ordered = placeholders[:1] + [node for node in graph.nodes if node not in placeholders[:1]]
    return {node: INPUT + position for position, node in enumerate(ordered)}


def _plain(structure: Any) -> Any:
    """Fx's immutable lists and dicts as ordinary ones, which every function accepts."""
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*map(_plain, structure))
    if isinstance(structure, list | tuple):
        return (list if isinstance(structure, list) else tuple)(map(_plain, structure))
    if isinstance(structure, dict):
        return {key: _plain(part) for key, part in structure.items()}
    return structure


def _exported_anchors(graph: fx.Graph, numbers: dict[fx.Node, int]) -> dict[str, list[Returned | None]]:
    """What each module returned: of the nodes made inside it, the one that is read outside."""
    inside: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        for path, _ in node.meta.get("nn_module_stack", {}).values():
            if path and isinstance(path, str):
                inside.setdefault(path, []).append(node)
    anchors: dict[str, list[Returned | None]] = {}
    for path, nodes in inside.items():
        members = set(nodes)
        leaving = [node for node in nodes if any(user not in members for user in node.users)]
        if len(leaving) == 1 and "@" not in path:  # a second call of a module is marked "path@1"
            again = f"{path}@1" in inside
            end = max(numbers[node] for node in nodes)
            anchors[path] = [Returned(numbers[leaving[0]], end)] * (2 if again else 1)
    return anchors


def _sets_grad_mode(graph: fx.Graph) -> bool:
    return any("set_grad_enabled" in str(node.target) or "wrap_with" in str(node.target) for node in graph.nodes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch.export reports what it could not follow on stderr; the reason is in the exception as well."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
