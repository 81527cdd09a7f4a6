"""Follow one forward of a module with stand-ins for its tensors, without touching anything that other threads see.

`torch.fx`'s own tracer replaces `nn.Module.__call__` and `__getattr__` for the whole process. Here the calls of our
copy's modules are seen through `forward` attributes of these very objects, and functions that make tensors through a
mode that torch keeps per thread. What the forward asks of sizes is answered by running it beside, on one row and on
two; what it asks of data, or of the number of rows, is refused.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError
from torch.utils._pytree import tree_leaves

from .address import wrapper
from .sizes import Sizes, trait
from .stand_ins import Functions, Read, StandIn
from .steps import mapped

_CALL = nn.Module._call_impl.__code__


class Tracer(fx.Tracer):
    """One trace of one module.

    Args:
        scope: our own copy of a module, in eval mode. It is left as found, but for constants of its forward.
        single: which modules stay single calls.
        barriers: ids of those among them whose hooks have to fire.
        example: two rows that the module takes; without them sizes are not known.
        fixed: write sizes that do not depend on the number of rows down as they are. Not every function of torch takes
            stand-ins for them, but steps that hold them fit inputs of this one shape.

    Attributes:
        order: the nodes as they were made.
        returned: per module path, what each call returned first and the last node made by then; None where that is
            no tensor of its own.
        gradient_gaps: whether autograd takes another way through the forward than through its steps.
        autocasts: whether a part of it runs under autocast.
    """

    def __init__(
        self,
        scope: nn.Module,
        single: Callable[[nn.Module], bool],
        barriers: frozenset[int],
        example: Tensor | None,
        *,
        fixed: bool = False,
    ) -> None:
        super().__init__()
        self.root = scope
        self.graph = fx.Graph(tracer_cls=type(self))
        self.tensor_attrs = {}
        self.submodule_paths = {module: path for path, module in scope.named_modules()}
        self.order: list[fx.Node] = []
        self.returned: dict[str, list[tuple[fx.Node, fx.Node] | None]] = {}
        self.gradient_gaps = self.autocasts = False
        self.sizes = Sizes(scope, self.order, self.constant, example) if example is not None else None
        self._single, self._barriers, self._fixed = single, barriers, fixed
        self._numbers: set[fx.Node] = set()
        self._constants: dict[str, Tensor] = {}

    def follow(self) -> Any:
        """Traces; returns the output with a node in the place of every tensor.

        Raises:
            Exception: whatever the forward raises when it meets a stand-in.
        """
        with _as_found(self.root), torch.enable_grad(), Functions():
            batch = self.create_proxy("placeholder", "batch", (), {})
            self._watch(self.root, "")
            output = mapped(self._leaf, self.root(batch))
        for name, constant in self._constants.items():
            # A buffer, so that it follows the module to another dtype.
            self.root.register_buffer(name, constant, persistent=False)
        self._forget_numbers(output)
        return output

    # What fx asks of a tracer

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A stand-in for what a node makes."""
        return fx.Proxy(node, self) if self.sizes is None else StandIn(node, self)

    def create_proxy(self, *args: Any, **kwargs: Any) -> Any:
        """A stand-in for what a new node makes, or a size itself."""
        return self.settled(super().create_proxy(*args, **kwargs))

    def numeric(self, node: fx.Node) -> bool:
        """Whether a node makes a size, or what is computed from sizes alone."""
        return node in self._numbers

    def settled(self, proxy: fx.Proxy) -> Any:
        """The size that a stand-in stands for, where sizes are to be written down."""
        if self._fixed and self.sizes is not None and proxy.node in self._numbers:
            with contextlib.suppress(TraceError):
                return self.sizes.known(proxy.node)
        return proxy

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """A node, with a note of the mode in which it runs."""
        self.gradient_gaps |= not torch.is_grad_enabled() or _in_custom_function()
        self.autocasts |= torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
        node = super().create_node(*args, **kwargs)
        self.order.append(node)
        computed = node.op == "call_function" and self._numbers.issuperset(node.all_input_nodes or [node])
        if trait(node) or computed:
            self._numbers.add(node)
        return node

    def create_arg(self, a: Any) -> Any:
        """An argument as a node holds it; tensors that the forward made without the input become constants."""
        if isinstance(a, fx.Proxy):
            return a.node
        if isinstance(a, Tensor):
            return self._constant(a)
        return super().create_arg(a)

    # What modules are called with

    def _watch(self, module: nn.Module, path: str) -> None:
        """Sees the calls of the modules inside one that is looked into, and what it reads of its own."""
        for name, value in (*module._parameters.items(), *module._buffers.items()):
            # A property of the class, as parametrisations put there, comes before what the object holds.
            if value is not None and not hasattr(type(module), name):
                vars(module)[name] = self._read(f"{path}.{name}" if path else name)
        for name, child in module.named_children():
            inner = f"{path}.{name}" if path else name
            if "forward" in vars(child) and getattr(vars(child)["forward"], "_watched", False):
                continue  # a module with two names
            single = self._single(child) or id(child) in self._barriers
            vars(child)["forward"] = self._watched(child, inner, single)
            if not single:
                self._watch(child, inner)

    def _read(self, path: str) -> fx.Proxy:
        return self.create_proxy("get_attr", path, (), {}) if self.sizes is None else Read(self, path)

    def _watched(self, module: nn.Module, path: str, single: bool) -> Callable[..., Any]:
        own: Callable[..., Any] = module.forward
        inner = wrapper(module)
        if inner is not None and not single:
            own = getattr(module, inner)  # what distributes or compiles a module is left out

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self.sizes is not None and self.sizes.running:
                return own(*args, **kwargs)
            if not _called_by_torch(sys._getframe(1)):
                return self._direct(module, own, single, args, kwargs)
            start = len(self.order)
            returned = self.create_proxy("call_module", path, args, kwargs) if single else own(*args, **kwargs)
            leaf = next((leaf for leaf in tree_leaves(returned) if isinstance(leaf, fx.Proxy)), None)
            # What a module was given and hands on is read by others under the same name, and not because of the module.
            fresh = leaf is not None and leaf.node in self.order[start:]
            seen = (leaf.node, self.order[-1]) if leaf is not None and fresh else None
            self.returned.setdefault(path, []).append(seen)
            return returned

        if single and type(module).__call__ is not nn.Module.__call__:
            own_call = type(module).__qualname__
            forward = _refusing(f"{own_call} is called in a way of its own")
        forward._watched = True  # type: ignore[attr-defined]
        return forward

    def _direct(
        self, module: nn.Module, own: Callable[..., Any], single: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A call of `module.forward(...)`, past the module's hooks."""
        if id(module) in self._barriers:
            raise TraceError(f"the forward of {type(module).__name__} is called past its hooks")
        return self.create_proxy("call_function", own, args, kwargs) if single else own(*args, **kwargs)

    def _constant(self, tensor: Tensor) -> fx.Node:
        for path, own in (*self.root.named_parameters(), *self.root.named_buffers()):
            if own is tensor:
                return self.create_node("get_attr", path, (), {})
        name = next((name for name, own in self._constants.items() if own is tensor), None)
        if name is None:
            taken = (f"_constant{i}" for i in range(len(self._constants), sys.maxsize))
            name = next(name for name in taken if not hasattr(self.root, name))
            self._constants[name] = tensor
        return self.create_node("get_attr", name, (), {})

    def constant(self, path: str) -> Any:
        """What a node that reads an attribute reads."""
        if path in self._constants:
            return self._constants[path]
        owner, _, name = path.rpartition(".")
        module = self.root.get_submodule(owner)
        return (module._parameters | module._buffers)[name]

    def _leaf(self, leaf: Any) -> Any:
        if isinstance(leaf, fx.Proxy):
            return leaf.node
        if isinstance(leaf, Tensor):
            return self._constant(leaf)
        if any(isinstance(part, fx.Proxy) for part in getattr(leaf, "__dict__", {}).values()):
            raise TraceError(f"it returns a {type(leaf).__qualname__}, which cannot be filled in")
        return leaf

    def _forget_numbers(self, output: Any) -> None:
        """Takes out what was only asked for: sizes that nothing reads, and checks of them."""
        kept: set[fx.Node] = set()
        mapped(lambda leaf: kept.add(leaf) if isinstance(leaf, fx.Node) else None, output)
        for node in reversed(self.order):
            if (node in self._numbers or node.op == "get_attr") and not node.users and node not in kept:
                self.graph.erase_node(node)


def _called_by_torch(frame: FrameType) -> bool:
    """Whether it is torch's own call of a module that runs here: that, or what it wraps around where hooks are."""
    return frame.f_code is _CALL or (frame.f_back is not None and frame.f_back.f_code is _CALL)


def _refusing(reason: str) -> Callable[..., Any]:
    def forward(*_args: Any, **_kwargs: Any) -> Any:
        raise TraceError(reason)

    return forward


def _in_custom_function() -> bool:
    """Whether this runs inside the forward of an `autograd.Function`, whose backward is its own."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not Tracer.follow.__code__:
        code = frame.f_code
        # Such a forward is static; torch calls it from compiled code, which has no frame.
        if code.co_name == "forward" and code.co_argcount and code.co_varnames[0] != "self":
            owner = frame.f_locals.get(code.co_varnames[0])
            if not isinstance(owner, fx.Proxy | nn.Module):
                return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def _as_found(scope: nn.Module) -> Iterator[None]:
    """Puts back the attributes of every module, whatever the forward or the tracer did to them."""
    kept = [(vars(module), dict(vars(module))) for module in scope.modules()]
    inside = [part for _, own in kept for part in own.values() if type(part) in (dict, list, set)]
    contents = [part.copy() for part in inside]
    try:
        yield
    finally:
        for own, before in kept:
            own.clear()
            own.update(before)
        for part, before in zip(inside, contents, strict=True):
            part.clear()
            (part.extend if isinstance(part, list) else part.update)(before)
