"""What is known of an operation: the words of the table in `operations`."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal


class Kind(enum.Enum):
    """How a value's rows, channels and positions depend on what the step reads."""

    ELEMENTWISE = "each element depends on the same element of one tensor"
    CHANNELWISE = "as elementwise, with parameters per channel"
    POOLED = "each channel depends on a window of the same channel"
    WINDOWED = "each position depends on a window of positions, over channels"
    JOIN = "each element depends on the same element of several tensors, or tensors lie side by side"
    GLOBAL = "positions depend on all positions"
    SHAPE = "the same elements in another shape or order"
    NUMBER = "not a tensor: a size, a length, an index"
    UNKNOWN = "nothing is known"


Region = Literal[
    "", "elementwise", "channelwise", "join", "concatenation", "convolution", "transposed convolution", "maximum pool",
    "mean pool", "padding", "resampling", "shuffle", "reshape", "permutation", "narrow", "index", "mean", "extremum",
    "deviation", "norm", "normalize", "softmax", "cumulation", "glu", "last axis", "last axes", "channel window",
    "split", "unbind",
]  # fmt: skip
Linear = Literal["", "all", "first", "factors", "later factors", "but condition", "but weight"]
Gradient = Literal["", "of output", "of input", "sum", "concatenation", "scale", "matrix", "convolution"]
Rescale = Literal["", "quotient", "maximum", "softmax"]
Size = Literal[
    "", "at most one", "no larger", "same", "sum", "product", "mean", "resized", "attention", "attention module",
    "scaled", "normalised", "weighted",
]  # fmt: skip
Fusion = Literal["", "convolution", "linear", "attention"]
Content = Literal["all", "first", "none"]


@dataclass(frozen=True)
class Operation:
    """What is known of one operation.

    Attributes:
        name: canonical, the same for module, function and method; "" for what is not known.
        kind: how it treats rows, channels and positions.
        region: how a changed box of what it reads passes it.
        linear: in which of its arguments it is linear, up to a constant: all tensors together; the first, where
            nothing else depends on the input; one of its factors, or of those behind the first argument; all "but" the
            argument that says how the others are mixed.
        gradient: its input gradient: told by its output or by its input, element by element (such an activation is
            fused with what it follows); or the form of a linear one. "" leaves it to autograd.
        rescale: its multiplier under the rescale rule, where it is not linear in what depends on the input.
        size: how large its results can be.
        fusion: as what a fused step begins with it.
        differences: whether its output's difference depends on those of its tensors alone, linearly, position by
            position.
        content: whose content, and not only shape or dtype, decides what it returns.
    """

    name: str
    kind: Kind
    region: Region = ""
    linear: Linear = ""
    gradient: Gradient = ""
    rescale: Rescale = ""
    size: Size = ""
    fusion: Fusion = ""
    differences: bool = False
    content: Content = "all"


UNKNOWN = Operation("", Kind.UNKNOWN)
