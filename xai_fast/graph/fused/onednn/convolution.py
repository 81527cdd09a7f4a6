"""oneDNN's fused, prepacked convolutions, through operators that torch keeps for its own compiler.

They are private, so they are probed once and used only while they give what the public operators give. They know no
autograd. Weights are packed for the spatial shape that runs: packed for another one they are slower than unpacked.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from xai_fast.graph.fused.parts import NOTHING, RELU, Activation, Geometry
from xai_fast.graph.fused.public import Convolution
from xai_fast.graph.layout import LONG_SUM

from .winograd import MinimalFilter

_MOST_SHAPES = 4  # packed copies of one weight that are kept, where they cannot be told apart
_DTYPES = (3, 2)  # float32 and bfloat16 in oneDNN's descriptions
_PADDINGS = ((0, 0), (1, 1), (2, 2))  # of minimal filtering
_NAMES = {"silu": "swish"}  # of activations, where oneDNN has another


@dataclass(eq=False, repr=False)
class PackedConvolution(Convolution):
    """A convolution, channels-last, whose weight is packed on demand for the shapes that run.

    Attributes:
        parts: into how many stretches of input channels, as `chunk` cuts them, the sum is cut, each added to the result
            of the one before. oneDNN adds up all products in one float32 chain, and rounding grows with its length.
        turned: whether kernels are used turned by half a turn, which is not stored beside what is packed.
    """

    parts: int = 1
    turned: bool = False
    _packed: dict[tuple[int, ...], list[Tensor]] = field(default_factory=dict)
    _forms: dict[tuple[int, bytes], Tensor] = field(default_factory=dict)

    @property
    def kernels(self) -> Tensor:
        """The weight as it is used."""
        return self.weight.flip(2, 3) if self.turned else self.weight

    def forward(self, x: Tensor, activation: Activation = NOTHING, *, pads: bool = True) -> Tensor:
        """See `Convolution`."""
        if not usable(x, self.weight.dtype):
            return self.plain(x, activation, pads=pads)
        geometry, done = self.geometry if pads else self.unpadded, activation
        if self._is_product(x, geometry):
            return self._product(x, activation)
        if (minimal := self.minimal(x, geometry)) is not None:
            y = minimal(x, geometry.padding[0], None, None, relu=done == RELU)
            return y if done in (NOTHING, RELU) else done(y)
        packed = self.packed(x, geometry.padding)
        first, *rest = x.chunk(len(packed), dim=1) if len(packed) > 1 else (x,)
        done = NOTHING if rest else done
        y = torch.ops.mkldnn._convolution_pointwise(
            first, packed[0], self.bias, geometry.padding, geometry.stride, geometry.dilation, geometry.groups,
            *pointwise(done),
        )  # fmt: skip
        return _accumulate(y, rest, packed[1:], None, geometry, activation) if rest else y

    def added(self, x: Tensor, other: Tensor, *, rectified: bool, consumes: bool, pads: bool = True) -> Tensor:
        """See `Convolution`."""
        if not (usable(x, self.weight.dtype) and usable(other, self.weight.dtype)):
            return self.plain_added(x, other, rectified=rectified, pads=pads)
        geometry = self.geometry if pads else self.unpadded
        dense = other.is_contiguous(memory_format=torch.channels_last)
        minimal = self.minimal(x, geometry) if dense else None
        if minimal is not None:
            return minimal(x, geometry.padding[0], other, other if consumes else None, relu=rectified)
        if not (consumes and dense):
            other = other.clone(memory_format=torch.channels_last)
        packed = self.packed(x, geometry.padding)
        stretches = x.chunk(len(packed), dim=1) if len(packed) > 1 else (x,)
        return _accumulate(other, stretches, packed, self.bias, geometry, RELU if rectified else NOTHING)

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
        form = form_of(packed)
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

    def _is_product(self, x: Tensor, geometry: Geometry) -> bool:
        """Whether it is a product of two matrices, as in squeeze-and-excitation gates.

        oneDNN's convolutions take two to three times as long for them as a linear layer on an AVX2 processor.
        """
        plain = geometry.padding == (0, 0) and geometry.groups == 1 == self.parts and x.dtype is torch.float32
        return plain and tuple(x.shape[2:]) == tuple(self.weight.shape[2:]) == (1, 1)

    def _product(self, x: Tensor, activation: Activation) -> Tensor:
        """`forward` of maps of one position."""
        bias = None if self.bias is None else self.bias.detach()
        y = activation(F.linear(x.detach().flatten(1), self.weight.detach().flatten(1), bias))
        return y[:, None, None, :].permute(0, 3, 1, 2)

    def _stretches(self) -> list[Tensor]:
        weight = self.kernels.detach()
        parts = weight.chunk(self.parts, dim=1)
        return [part.contiguous(memory_format=torch.channels_last) for part in parts]


def pointwise(activation: Activation) -> tuple[str, Sequence[float], str]:
    """An activation in oneDNN's words: its name, its numbers, its algorithm."""
    return _NAMES.get(activation.name, activation.name), activation.scalars, activation.approximate


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


def form_of(packed: Tensor) -> bytes | None:
    """How a packed weight lies in memory; None where torch does not tell."""
    try:
        described = torch.ops.mkldnn._get_mkldnn_serialized_md(packed).clone()
    except (AttributeError, RuntimeError):
        return None
    # In words of 4 bytes: a header, the number of axes, 12 extents of 8 bytes, the type, and a gap before the next 8
    # bytes. Whatever was in memory there would tell forms apart that are the same.
    words = described.view(torch.int32)
    extents = described[8:104].view(torch.int64)[: int(words[1])]
    if int(extents.prod()) == packed.numel() and int(words[26]) in _DTYPES:
        words[27] = 0
    return described.numpy().tobytes()


def usable(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether the private operators may be given this tensor beside weights of that dtype, autograd considered."""
    return x.dtype is dtype and x.device.type == "cpu" and not (torch.is_grad_enabled() and x.requires_grad)
