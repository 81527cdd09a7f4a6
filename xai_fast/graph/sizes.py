"""What a traced forward may be told of sizes: what it asks is answered by running it beside, on one row and on two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError

# Numbers of rows for which an answer has to be the same before the forward may branch on it.
_ROWS = (1, 2, 3, 5, 8, 64, 4096)
# What is asked of a tensor and does not depend on what is in it.
TRAITS = {
    *("shape", "size", "dim", "ndim", "ndimension", "len", "numel", "nelement", "dtype", "device", "get_device"),
    *("element_size", "itemsize", "layout", "type", "is_contiguous", "is_floating_point", "is_complex", "is_cuda"),
    *("is_cpu", "is_mps", "is_xpu", "is_meta", "is_sparse", "is_quantized", "is_nested", "is_mkldnn"),
}


class Sizes:
    """Sizes and what follows from them, where they do not depend on data.

    Everything traced so far runs when something is asked.

    Args:
        root: the module that is traced.
        order: the nodes made so far; it grows.
        constant: what a node that reads an attribute reads.
        example: two rows that the module takes.
    """

    def __init__(
        self, root: nn.Module, order: Sequence[fx.Node], constant: Callable[[str], Any], example: Tensor
    ) -> None:
        self.running = False
        self.example = example
        self._root, self._order, self._constant = root, order, constant
        self._done = 0
        self._one: dict[fx.Node, Any] = {}
        self._two: dict[fx.Node, Any] = {}
        # Per number, and per value that follows from constants alone, what it is for each of `_ROWS`.
        self._numbers: dict[fx.Node, Sequence[Any]] = {}

    def known(self, node: fx.Node, read: Callable[[Any], Any] = lambda value: value) -> Any:
        """A value, or what is read off it, that is the same whatever the input and the number of rows.

        Raises:
            TraceError: it is not.
        """
        self._run()
        if node not in self._numbers:
            raise TraceError("its forward branches on data (symbolically traced, it cannot be used in control flow)")
        first, *others = self._numbers[node]
        if not isinstance(first, Tensor) and any(not _same(read(first), read(other)) for other in others):
            raise TraceError("its forward branches on the number of rows")
        return read(first)

    def is_number(self, node: fx.Node) -> bool:
        """Whether a node was found to be a number, an extent or the like."""
        return node in self._numbers and not any(isinstance(value, Tensor) for value in self._numbers[node])

    def one(self, node: fx.Node) -> Any:
        """The value for one row."""
        self._run()
        return self._one[node]

    def type_of(self, node: fx.Node) -> type:
        """The class of a value; that of a symbolic integer where it is a number that depends on the rows."""
        kind = type(self.one(node))
        varies = kind is int and len(set(self._numbers.get(node, ()))) > 1
        return torch.SymInt if varies else kind

    def both(self, node: fx.Node) -> tuple[Any, Any]:
        """The values for one row and for two."""
        self._run()
        return self._one[node], self._two[node]

    def _run(self) -> None:
        order = self._order
        self.running = True
        try:
            with torch.no_grad():
                while self._done < len(order):
                    self._evaluate(order[self._done])
                    self._done += 1
        finally:
            self.running = False

    def _evaluate(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self._one[node], self._two[node] = self.example[:1].clone(), self.example.clone()
            return
        if node.op == "get_attr":
            value = self._constant(str(node.target))
            # Steps may write in place into it.
            self._one[node], self._two[node] = value.clone(), value.clone()
            self._numbers[node] = (self._one[node],) * len(_ROWS)
            return
        read = node.all_input_nodes
        versions = {n: self._one[n]._version for n in read if isinstance(self._one[n], Tensor)}
        self._one[node], self._two[node] = (_call(self._root, node, side) for side in (self._one, self._two))
        for n, version in versions.items():
            if self._one[n]._version != version:
                self._numbers.pop(n, None)  # what was a constant has been written to
        if trait(node) and not all(n in self._numbers for n in read):
            numbers = _extrapolated(self._one[node], self._two[node])
        elif all(n in self._numbers for n in read):
            numbers = self._recomputed(node, read)
        else:
            numbers = None
        if numbers is not None:
            self._numbers[node] = numbers

    def _recomputed(self, node: fx.Node, read: Sequence[fx.Node]) -> Sequence[Any] | None:
        """What follows from numbers and constants, for each number of rows."""
        if any(isinstance(self._numbers[n][0], Tensor) for n in read) or isinstance(self._one[node], Tensor):
            varies = any(self.is_number(n) and len(set(map(str, self._numbers[n]))) > 1 for n in read)
            return None if varies else (self._one[node],) * len(_ROWS)
        try:
            sides = [{n: self._numbers[n][i] for n in read} for i in range(len(_ROWS))]
            return [_call(self._root, node, side) for side in sides]
        except Exception:  # a function of the user's may take no such number of rows
            return None


def _call(root: nn.Module, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    args = plain(fx.map_arg(node.args, values.__getitem__))
    kwargs = plain(fx.map_arg(node.kwargs, values.__getitem__))
    if node.op == "call_module":
        return root.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


def trait(node: fx.Node) -> bool:
    """Whether a node asks for what does not depend on the data in a tensor."""
    if node.op == "call_method":
        return node.target in TRAITS
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] in TRAITS
    return node.op == "call_function" and node.target is len


def _extrapolated(one: Any, two: Any) -> Sequence[Any] | None:
    """What is seen for one row and for two, for each number of rows: extents grow by as much with every row."""
    if isinstance(one, tuple) and isinstance(two, tuple) and len(one) == len(two):
        parts = [_extrapolated(a, b) for a, b in zip(one, two, strict=True)]
        if any(part is None for part in parts):
            return None
        rows = zip(*(part for part in parts if part is not None), strict=True) if parts else [()] * len(_ROWS)
        return [torch.Size(row) if isinstance(one, torch.Size) else tuple(row) for row in rows]
    if type(one) is int and type(two) is int:
        return [one + (two - one) * (rows - 1) for rows in _ROWS]
    return (one,) * len(_ROWS) if _same(one, two) else None


def _same(left: Any, right: Any) -> bool:
    try:
        return bool(left == right)
    except Exception:  # values of the user's own classes may refuse to be compared
        return False


def plain(structure: Any) -> Any:
    """Fx's immutable lists and dicts as ordinary ones, which every function accepts."""
    if isinstance(structure, tuple):
        parts = [*map(plain, structure)]
        if type(structure) in (tuple, torch.Size):
            return tuple(parts)
        # Named tuples, and what `max` and its kin return, whose parts have names as well.
        return type(structure)(*parts) if hasattr(structure, "_fields") else type(structure)(parts)
    if isinstance(structure, list):
        return [*map(plain, structure)]
    if isinstance(structure, dict):
        return {key: plain(part) for key, part in structure.items()}
    return structure
