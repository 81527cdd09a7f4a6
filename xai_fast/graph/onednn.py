"""oneDNN's fused, prepacked convolutions, through operators that torch keeps for its own compiler.

They are private, so they are probed once and used only while they give what the public operators give. They know no
autograd. Weights are packed for the spatial shape that runs: packed for another one they are slower than unpacked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from .care import Care
from .layout import LONG_SUM
from .winograd import MinimalFilter

_MOST_SHAPES = 4  # packed copies of one weight that are kept, where they cannot be told apart
_SINGLE = 3  # float32 in oneDNN's descriptions
_PADDINGS = ((0, 0), (1, 1), (2, 2))  # of minimal filtering


@dataclass(frozen=True)
class Activation:
    """An elementwise function in oneDNN's words."""

    name: str
    scalars: tuple[float, ...] = ()
    algorithm: str = ""

    def __call__(self, x: Tensor) -> Tensor:
        """By public operators, in place where there is one."""
        return _PUBLIC[self.name](x, self)


_PUBLIC: dict[str, Callable[[Tensor, Activation], Tensor]] = {
    "none": lambda x, _: x,
    "relu": lambda x, _: F.relu_(x),
    "hardtanh": lambda x, a: F.hardtanh_(x, *a.scalars),
    "swish": lambda x, _: F.silu(x, inplace=True),
    "hardswish": lambda x, _: F.hardswish(x, inplace=True),
    "leaky_relu": lambda x, a: F.leaky_relu_(x, *a.scalars),
    "gelu": lambda x, a: F.gelu(x, approximate=a.algorithm),
    "sigmoid": lambda x, _: x.sigmoid_(),
    "tanh": lambda x, _: x.tanh_(),
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


@dataclass(eq=False, repr=False)
class PackedWeight:
    """A convolution's weight and bias, packed on demand for the shapes that run.

    Attributes:
        weight: (out, in / groups, h, w).
        bias: (out,).
        geometry: of the convolution.
        parts: into how many stretches of input channels, as `chunk` cuts them, the sum is cut, each added to the result
            of the one before. oneDNN adds up all products in one float32 chain, and rounding grows with its length.
        turned: whether kernels are used turned by half a turn, which is not stored beside what is packed.
    """

    weight: Tensor
    bias: Tensor | None
    geometry: Geometry
    parts: int = 1
    turned: bool = False
    _packed: dict[tuple[int, ...], list[Tensor]] = field(default_factory=dict)
    _forms: dict[tuple[int, bytes], Tensor] = field(default_factory=dict)

    @functools.cached_property
    def gain(self) -> tuple[float, float]:
        """See `gain`."""
        return gain(self.weight, self.bias)

    @property
    def kernels(self) -> Tensor:
        """The weight as it is used."""
        return self.weight.flip(2, 3) if self.turned else self.weight

    def packed(self, x: Tensor, padding: tuple[int, int]) -> list[Tensor]:
        """The packed stretches for inputs like `x` (rows, in, H, W)."""
        # One row and many are packed for separately; beyond that the number of rows does not change the form.
        key = (*x.shape[2:], *padding, min(len(x), 2))
        found = self._packed.get(key)
        if found is None:
            found = [self._reordered(number, part, x, padding) for number, part in enumerate(self._stretches())]
            if len(self._packed) >= _MOST_SHAPES and not self._forms:
                self._packed.pop(next(iter(self._packed)))
            self._packed[key] = found
        return found

    def _reordered(self, number: int, part: Tensor, x: Tensor, padding: tuple[int, int]) -> Tensor:
        """One stretch packed for inputs like `x`; most shapes want the same form, which is then kept once."""
        geometry = self.geometry
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            part, padding, geometry.stride, geometry.dilation, geometry.groups,
            [len(x), x.shape[1] if self.parts == 1 else part.shape[1], *x.shape[2:]],
        )  # fmt: skip
        form = _form(packed)
        return packed if form is None else self._forms.setdefault((number, form), packed)

    def minimal(self, x: Tensor, geometry: Geometry) -> MinimalFilter | None:
        """The weight for minimal filtering, where that is faster for inputs like `x`."""
        plain = geometry.stride == geometry.dilation == (1, 1) and geometry.groups == 1
        if not plain or geometry.padding not in _PADDINGS or self._filter is None:
            return None
        return self._filter if self._filter.pays(x, geometry.padding[0]) else None

    @functools.cached_property
    def _filter(self) -> MinimalFilter | None:
        return MinimalFilter.of(self.kernels.detach(), self.bias)

    @functools.cached_property
    def unpadded(self) -> Geometry:
        """The geometry without padding."""
        return replace(self.geometry, padding=(0, 0))

    def _stretches(self) -> list[Tensor]:
        weight = self.kernels.detach()
        parts = weight.chunk(self.parts, dim=1)
        return [part.contiguous(memory_format=torch.channels_last) for part in parts]


@dataclass(eq=False, repr=False)
class FusedConvolution:
    """y = activation(convolution(x)), channels-last, prepacked.

    Attributes:
        source: the convolution.
        activation: what follows it.
        pads: whether it pads, as its geometry says; without padding it runs on regions that bring their surroundings.
        care: what has to be known of its input before oneDNN may run it; None where NaN shows in any case.
    """

    source: PackedWeight
    activation: Activation = NOTHING
    pads: bool = True
    care: Care | None = None

    def unpadded(self) -> FusedConvolution:
        """The same without padding."""
        return replace(self, pads=False)

    def __call__(self, x: Tensor) -> Tensor:
        """`x` (rows, in, H, W)."""
        source = self.source
        geometry = source.geometry if self.pads else source.unpadded
        safe = self.care is None or self.care.suffices(x)
        if not (safe and usable(x)):
            y = F.conv2d(x, source.kernels, source.bias, geometry.stride, geometry.padding, geometry.dilation,
                         geometry.groups)  # fmt: skip
            return self.activation(y)
        done = self.activation
        if (minimal := source.minimal(x, geometry)) is not None:
            y = minimal(x, geometry.padding[0], None, None, relu=done == RELU)
            return y if done in (NOTHING, RELU) else done(y)
        packed = source.packed(x, geometry.padding)
        first, *rest = x.chunk(len(packed), dim=1) if len(packed) > 1 else (x,)
        done = NOTHING if rest else done
        y = torch.ops.mkldnn._convolution_pointwise(
            first, packed[0], source.bias, geometry.padding, geometry.stride, geometry.dilation, geometry.groups,
            done.name, done.scalars, done.algorithm,
        )  # fmt: skip
        return _accumulate(y, rest, packed[1:], None, geometry, self.activation) if rest else y


@dataclass(eq=False, repr=False)
class FusedResidual:
    """y = relu(convolution(x) + other), summed up in the memory of `other`.

    Attributes:
        source: the convolution.
        rectified: whether the ReLU is part of it.
        consumes: whether nobody needs `other` afterwards.
        pads: as in `FusedConvolution`.
        care: as in `FusedConvolution`, of both inputs.
    """

    source: PackedWeight
    rectified: bool
    consumes: bool
    pads: bool = True
    care: Care | None = None

    def unpadded(self) -> FusedResidual:
        """The same without padding, for regions of which nobody else needs `other`."""
        return replace(self, pads=False, consumes=True)

    def __call__(self, x: Tensor, other: Tensor) -> Tensor:
        """`x` (rows, in, H, W), `other` (rows, out, h, w)."""
        source = self.source
        geometry = source.geometry if self.pads else source.unpadded
        safe = self.care is None or self.care.suffices(x, other)
        if not (safe and usable(x) and usable(other)):
            y = F.conv2d(x, source.kernels, source.bias, geometry.stride, geometry.padding, geometry.dilation,
                         geometry.groups) + other  # fmt: skip
            return F.relu_(y) if self.rectified else y
        dense = other.is_contiguous(memory_format=torch.channels_last)
        minimal = source.minimal(x, geometry) if dense else None
        if minimal is not None:
            out = other if self.consumes else None
            return minimal(x, geometry.padding[0], other, out, relu=self.rectified)
        if not (self.consumes and dense):
            other = other.clone(memory_format=torch.channels_last)
        packed = source.packed(x, geometry.padding)
        stretches = x.chunk(len(packed), dim=1) if len(packed) > 1 else (x,)
        return _accumulate(other, stretches, packed, source.bias, geometry, RELU if self.rectified else NOTHING)


def _accumulate(
    y: Tensor,
    stretches: Sequence[Tensor],
    packed: Sequence[Tensor],
    bias: Tensor | None,
    geometry: Geometry,
    activation: Activation,
) -> Tensor:
    """Adds the convolutions of the stretches to `y` in place, then applies the activation."""
    for position, (x, weight) in enumerate(zip(stretches, packed, strict=True)):
        rectify = "relu" if activation == RELU and position == len(packed) - 1 else None
        y = torch.ops.mkldnn._convolution_pointwise_.binary(
            y, x, weight, bias if position == 0 else None, geometry.padding, geometry.stride, geometry.dilation,
            geometry.groups, "add", 1.0, rectify, [], "",
        )  # fmt: skip
    return y if activation in (NOTHING, RELU) else activation(y)


def gain(weight: Tensor, bias: Tensor | None) -> tuple[float, float]:
    """How much larger than its inputs a sum over products with `weight` (out, ...) can be, and the largest bias."""
    rows = weight.detach().flatten(1)
    sums = torch.linalg.vector_norm(rows, 1, dim=1) if rows.numel() else rows.new_zeros(1)
    return float(sums.max()), 0.0 if bias is None else float(bias.detach().abs().max())


def stretches(weight: Tensor, groups: int) -> int:
    """Into how many stretches of input channels, as `chunk` cuts them, a convolution's sum is cut so that none is long.

    Args:
        weight: (out, in / groups, h, w). A kernel whose positions alone make a long sum is cut into single channels.
        groups: of the convolution; with several the sums are short as they are.
    """
    channels, products = weight.shape[1], weight[0].numel()
    if products < LONG_SUM or groups != 1:
        return 1
    wanted = min(-(-products // LONG_SUM), channels)
    return -(-channels // -(-channels // wanted))


def _form(packed: Tensor) -> bytes | None:
    """How a packed weight lies in memory; None where torch does not tell."""
    try:
        described = torch.ops.mkldnn._get_mkldnn_serialized_md(packed).clone()
    except (AttributeError, RuntimeError):
        return None
    # In words of 4 bytes: a header, the number of axes, 12 extents of 8 bytes, the type, and a gap before the next 8
    # bytes. Whatever was in memory there would tell forms apart that are the same.
    words = described.view(torch.int32)
    extents = described[8:104].view(torch.int64)[: int(words[1])]
    if int(extents.prod()) == packed.numel() and int(words[26]) == _SINGLE:
        words[27] = 0
    return described.numpy().tobytes()


def usable(x: Tensor) -> bool:
    """Whether the private operators may be given this tensor, autograd considered."""
    return x.dtype is torch.float32 and x.device.type == "cpu" and not (torch.is_grad_enabled() and x.requires_grad)
