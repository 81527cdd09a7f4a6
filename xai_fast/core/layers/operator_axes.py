"""Which axes of an operator's result hold positions of the input, given what those of its operands hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any


@dataclass(frozen=True)
class Run:
    """An axis of tokens: `first` beside the grid, then those of the grid row by row, then perhaps more."""

    first: int
    grid: tuple[int, ...]


# What an axis holds: the positions along one of the input's axes, tokens, or neither.
Axis = int | Run | None
Held = tuple[Axis, ...]
FREE = "does not depend on the input"
OPEN = "cannot be told"
Known = Held | str
Parent = tuple[Known, tuple[int, ...] | None]  # what an operand holds, and its shape where it is known


class OpenError(Exception):
    """What an operator returns cannot be told."""


def operator(node: Any) -> str:
    """The operator's name, without what tells its overloads and implementations apart."""
    name = node.name().rpartition("::")[2].rstrip("0123456789").removesuffix("Backward")
    return "Attention" if name.startswith("ScaledDotProduct") else name


def shape_of(node: Any, number: int) -> tuple[int, ...]:
    """The shape of one of its results."""
    return tuple(node._input_metadata[number].shape)


def _axis(number: int, axes: int) -> int:
    """Autograd keeps negative numbers of axes as unsigned ones."""
    return (number - (1 << 64) if number >= 1 << 63 else number) % axes


def _only(parents: Sequence[Parent], which: int = 0) -> Held:
    """What one operand holds, where no other depends on the input."""
    held = parents[which][0]
    if isinstance(held, str) or any(other is not FREE for at, (other, _) in enumerate(parents) if at != which):
        raise OpenError
    return held


def _together(_node: Any, parents: Sequence[Parent], shape: tuple[int, ...]) -> Held:
    """Arithmetic of several operands, broadcast."""
    result: list[Axis] = [None] * len(shape)
    seen = [False] * len(shape)
    for held, extents in parents:
        if isinstance(held, str) or extents is None:
            continue
        offset = len(shape) - len(held)
        for axis, (one, extent) in enumerate(zip(held, extents, strict=True), offset):
            if extent == 1 and shape[axis] > 1:
                continue
            if seen[axis] and result[axis] != one:
                raise OpenError
            result[axis], seen[axis] = one, True
    return tuple(result)


def _windows(node: Any, parents: Sequence[Parent], shape: tuple[int, ...]) -> Held:
    """Convolution and pooling: what a cell is made of lies around it, unless the padding moves it away."""
    held = _only(parents)
    if hasattr(node, "_saved_padding"):
        weight = getattr(node, "_saved_weight", None)
        kernel = node._saved_kernel_size if weight is None else weight.shape[2:]
        dilation = getattr(node, "_saved_dilation", (1,) * len(kernel))
        for pad, extent, apart in zip(node._saved_padding, kernel, dilation, strict=True):
            if pad > (apart * (extent - 1) + 1) // 2:
                raise OpenError
    return _resized(node, [(held, parents[0][1])], shape)


def _resized(_node: Any, parents: Sequence[Parent], shape: tuple[int, ...]) -> Held:
    """(N, C, *s) in, (N, C, *s) out."""
    held, extents = _only(parents), parents[0][1]
    assert extents is not None
    for axis, (one, extent) in enumerate(zip(held[2:], extents[2:], strict=True)):
        if one != axis and extent > 1:
            raise OpenError
    if held[:2] != (None, None) or len(held) != len(shape):
        raise OpenError
    return (None, None, *(axis if extents[2 + axis] > 1 else None for axis in range(len(held) - 2)))


def _reduced(node: Any, parents: Sequence[Parent], shape: tuple[int, ...]) -> Held:
    """Sums and means over axes."""
    held = _only(parents)
    gone = {_axis(axis, len(held)) for axis in getattr(node, "_saved_dim", None) or range(len(held))}
    if len(shape) == len(held):
        return tuple(None if axis in gone else one for axis, one in enumerate(held))
    return tuple(one for axis, one in enumerate(held) if axis not in gone)


def _permuted(node: Any, parents: Sequence[Parent], _shape: tuple[int, ...]) -> Held:
    return tuple(_only(parents)[_axis(axis, len(node._saved_dims))] for axis in node._saved_dims)


def _transposed(node: Any, parents: Sequence[Parent], _shape: tuple[int, ...]) -> Held:
    held = list(_only(parents))
    one, other = _axis(node._saved_dim0, len(held)), _axis(node._saved_dim1, len(held))
    held[one], held[other] = held[other], held[one]
    return tuple(held)


def _viewed(_node: Any, parents: Sequence[Parent], shape: tuple[int, ...]) -> Held:
    """The same numbers in the same order under other extents: axes that hold nothing may be split and joined.

    Those of a whole grid, joined in their order, are tokens, which may be parted into that grid again.
    """
    held, before = _only(parents), parents[0][1]
    assert before is not None
    old = [(extent, one) for extent, one in zip(before, held, strict=True) if extent != 1]
    new = [(axis, extent) for axis, extent in enumerate(shape) if extent != 1]
    result: list[Axis] = [None] * len(shape)
    while old or new:
        taken, given = [old.pop(0)], [new.pop(0)]
        while (have := prod(extent for extent, _ in taken)) != (want := prod(extent for _, extent in given)):
            if have < want:
                taken.append(old.pop(0))
            else:
                given.append(new.pop(0))
        for (axis, _), one in zip(given, _regrouped(taken, [extent for _, extent in given]), strict=True):
            result[axis] = one
    return tuple(result)


def _regrouped(taken: Sequence[tuple[int, Axis]], extents: Sequence[int]) -> Sequence[Axis]:
    """What axes of these extents hold that lie where those that are taken lay."""
    holds = tuple(one for _, one in taken)
    if len(taken) == len(extents) == 1:
        return holds
    if all(one is None for one in holds):
        return [None] * len(extents)
    if len(extents) == 1 and holds == tuple(range(len(holds))):
        return [Run(0, tuple(extent for extent, _ in taken))]
    if holds == (Run(0, tuple(extents)),):
        return range(len(extents))
    raise OpenError


def _expanded(_node: Any, parents: Sequence[Parent], shape: tuple[int, ...]) -> Held:
    held, before = _only(parents), parents[0][1]
    assert before is not None
    grown = [one if extent == new else None for one, extent, new in zip(held, before, shape[-len(held) :], strict=True)]
    return (*[None] * (len(shape) - len(held)), *grown)


def _selected(node: Any, parents: Sequence[Parent], _shape: tuple[int, ...]) -> Held:
    gone = _axis(node._saved_dim, len(held := _only(parents)))
    return (*held[:gone], *held[gone + 1 :])


def _parted(node: Any, parents: Sequence[Parent], _shape: tuple[int, ...]) -> Held:
    """Parts along an axis without positions."""
    held = _only(parents)
    if held[_axis(node._saved_dim, len(held))] is not None:
        raise OpenError
    return held


def _sliced(node: Any, parents: Sequence[Parent], shape: tuple[int, ...]) -> Held:
    """A part of an axis: tokens keep their grid where all of it is in."""
    held, before = list(_only(parents)), parents[0][1]
    assert before is not None
    axis = _axis(node._saved_dim, len(held))
    one = held[axis]
    if one is None or shape[axis] == before[axis]:
        return tuple(held)
    start = _axis(node._saved_start, before[axis]) if node._saved_start else 0
    if not isinstance(one, Run) or node._saved_step != 1 or start > one.first:
        raise OpenError
    if shape[axis] < one.first - start + prod(one.grid):
        raise OpenError
    held[axis] = Run(one.first - start, one.grid)
    return tuple(held)


def _joined(node: Any, parents: Sequence[Parent], shape: tuple[int, ...]) -> Held:
    """Along channels; or tokens with others that do not depend on the input."""
    axis = _axis(node._saved_dim, len(shape))
    inputs = [(at, held) for at, (held, _) in enumerate(parents) if not isinstance(held, str)]
    rest = {(*held[:axis], *held[axis + 1 :]) for _, held in inputs}
    if len(rest) != 1 or any(len(held) != len(shape) for _, held in inputs):
        raise OpenError
    along = {held[axis] for _, held in inputs}
    if along == {None}:
        return inputs[0][1]
    (at, held), *others = inputs
    counts = [None if extents is None else extents[axis] for _, extents in parents]
    run = Run(0, (counts[at] or 0,)) if held[axis] == 0 and len(shape) == 3 else held[axis]
    if others or not isinstance(run, Run):
        raise OpenError
    # What autograd does not know the number of is what is left of the whole, on one side of the tokens.
    left = shape[axis] - sum(count or 0 for count in counts)
    if left and None in counts[:at] and None in counts[at:]:
        raise OpenError
    front = sum(count or 0 for count in counts[:at]) + (left if None in counts[:at] else 0)
    return (*held[:axis], Run(run.first + front, run.grid), *held[axis + 1 :])


def _linear(which: int) -> Callable[[Any, Sequence[Parent], tuple[int, ...]], Held]:
    """The last axis of one operand is multiplied by a matrix of weights."""

    def linear(_node: Any, parents: Sequence[Parent], _shape: tuple[int, ...]) -> Held:
        return (*_only(parents, which)[:-1], None)

    return linear


def _product(_node: Any, parents: Sequence[Parent], shape: tuple[int, ...]) -> Held:
    """Batches of matrices: rows as in the first, columns as in the second."""
    held = [(None,) * len(shape) if isinstance(one, str) else one for one, _ in parents[:2]]
    if any(len(one) != len(shape) for one in held) or held[0][:-2] != held[1][:-2]:
        raise OpenError
    return (*held[0][:-1], held[1][-1])


def _attended(_node: Any, parents: Sequence[Parent], _shape: tuple[int, ...]) -> Held:
    """Mixed values stand where the queries stood."""
    (query, _), _, (value, _) = parents[:3]
    if isinstance(query, str) or isinstance(value, str):
        raise OpenError
    return (*query[:-1], value[-1])


_EVERYWHERE = (
    *(
        "Relu",
        "Hardtanh",
        "Silu",
        "Hardswish",
        "Hardsigmoid",
        "Sigmoid",
        "Tanh",
        "Gelu",
        "LeakyRelu",
        "Elu",
        "Softplus",
    ),
    *(
        "Mish",
        "LogSigmoid",
        "Softmax",
        "Neg",
        "Pow",
        "Sqrt",
        "Rsqrt",
        "Exp",
        "Abs",
        "Clamp",
        "Clone",
        "Alias",
        "ToCopy",
    ),
    *("NativeBatchNorm", "CudnnBatchNorm", "NativeGroupNorm", "NativeLayerNorm"),
)
_RESIZING = (
    *(f"AdaptiveAvgPool{axes}D" for axes in (1, 2, 3)),
    *("UpsampleNearest1D", "UpsampleNearest2D", "UpsampleNearest3D", "UpsampleNearestExact2D"),
    *("UpsampleLinear1D", "UpsampleBilinear2D", "UpsampleBicubic2D", "UpsampleTrilinear3D"),
)
_POOLING = [
    f"{kind}{axes}D{more}" for axes in (1, 2, 3) for kind, more in (("AvgPool", ""), ("MaxPool", "WithIndices"))
]

RULES: dict[str, Callable[[Any, Sequence[Parent], tuple[int, ...]], Held]] = {
    **dict.fromkeys(_EVERYWHERE, lambda _node, parents, _shape: _only(parents)),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Maximum", "Minimum"), _together),
    **dict.fromkeys(("Convolution", *_POOLING), _windows),
    **dict.fromkeys(_RESIZING, _resized),
    **dict.fromkeys(("Mean", "Sum"), _reduced),
    **dict.fromkeys(("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze"), _viewed),
    **dict.fromkeys(("Split", "SplitWithSizes"), _parted),
    **dict.fromkeys(("Select", "Unbind"), _selected),
    "Permute": _permuted,
    "Transpose": _transposed,
    "Expand": _expanded,
    "Slice": _sliced,
    "Cat": _joined,
    "Mm": _linear(0),
    "Addmm": _linear(1),
    "Linear": _linear(0),
    "Bmm": _product,
    "Attention": _attended,
}
