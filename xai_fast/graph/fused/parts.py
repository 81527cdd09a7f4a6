"""What fused steps are described with: activations, how a convolution moves, gradients at every few positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Activation:
    """An elementwise function that can follow a convolution, a linear layer or a normalisation in the same call.

    Attributes:
        name: the canonical name of the operation (see `operations`); "none" for no function.
        scalars: its numbers: the slope of "leaky_relu", the bounds of "hardtanh".
        approximate: of "gelu": "none" or "tanh".
    """

    name: str
    scalars: tuple[float, ...] = ()
    approximate: str = ""

    def __call__(self, x: Tensor) -> Tensor:
        """By torch's public operators, in place where there is one."""
        return _IN_PLACE[self.name](x, self)

    def apart(self, x: Tensor) -> Tensor:
        """By torch's public operators; `x` is left as it is."""
        return _APART[self.name](x, self)


_IN_PLACE: dict[str, Callable[[Tensor, Activation], Tensor]] = {
    "none": lambda x, _: x,
    "relu": lambda x, _: F.relu_(x),
    "hardtanh": lambda x, a: F.hardtanh_(x, a.scalars[0], a.scalars[1]),
    "silu": lambda x, _: F.silu(x, inplace=True),
    "hardswish": lambda x, _: F.hardswish(x, inplace=True),
    "leaky_relu": lambda x, a: F.leaky_relu_(x, a.scalars[0]),
    "gelu": lambda x, a: F.gelu(x, approximate=a.approximate),
    "sigmoid": lambda x, _: x.sigmoid_(),
    "tanh": lambda x, _: x.tanh_(),
}
_APART: dict[str, Callable[[Tensor, Activation], Tensor]] = {
    "relu": lambda x, _: x.relu(),
    "hardtanh": lambda x, a: F.hardtanh(x, a.scalars[0], a.scalars[1]),
    "silu": lambda x, _: F.silu(x),
    "hardswish": lambda x, _: F.hardswish(x),
    "leaky_relu": lambda x, a: F.leaky_relu(x, a.scalars[0]),
    "gelu": lambda x, a: F.gelu(x, approximate=a.approximate),
    "sigmoid": lambda x, _: x.sigmoid(),
    "tanh": lambda x, _: x.tanh(),
}
NOTHING = Activation("none")
RELU = Activation("relu")


@dataclass(frozen=True)
class Geometry:
    """How a convolution moves over positions: (height, width) each."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


@dataclass(frozen=True)
class Strided:
    """A gradient that is zero except at every `stride`-th position.

    Attributes:
        tensor: (rows, C, h, w) at those positions.
        stride: (height, width).
        shape: (C, H, W) of the whole.
    """

    tensor: Tensor
    stride: tuple[int, int]
    shape: tuple[int, ...]
