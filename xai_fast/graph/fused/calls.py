"""The fused steps of a graph: several of the model's steps in one call, whatever implementation computes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from xai_fast.graph.care import Care, expect
from xai_fast.graph.steps import Step

from .parts import NOTHING, Activation
from .public import Bottleneck, Convolution, Linear


@dataclass(eq=False, repr=False)
class FusedConvolution:
    """y = activation(convolution(x)).

    Attributes:
        source: the convolution.
        activation: what follows it.
        pads: whether it pads, as its geometry says; without padding it runs on regions that bring their surroundings.
        care: what has to be known of its input where the implementation hides NaN; None where NaN shows in any case.
    """

    source: Convolution
    activation: Activation = NOTHING
    pads: bool = True
    care: Care | None = None

    def unpadded(self) -> FusedConvolution:
        """The same without padding."""
        return replace(self, pads=False)

    def __call__(self, x: Tensor) -> Tensor:
        """`x` (rows, in, H, W)."""
        if self.care is not None and not self.care.suffices(x):
            return self.source.plain(x, self.activation, pads=self.pads)
        return self.source.forward(x, self.activation, pads=self.pads)


@dataclass(eq=False, repr=False)
class FusedResidual:
    """y = relu(convolution(x) + other), or without the ReLU.

    Attributes:
        source: the convolution.
        rectified: whether the ReLU is part of it.
        consumes: whether nobody needs `other` afterwards, so that the sum may be made in its memory.
        pads: as in `FusedConvolution`.
        care: as in `FusedConvolution`, of both inputs.
    """

    source: Convolution
    rectified: bool
    consumes: bool
    pads: bool = True
    care: Care | None = None

    def unpadded(self) -> FusedResidual:
        """The same without padding, for regions of which nobody else needs `other`."""
        return replace(self, pads=False, consumes=True)

    def __call__(self, x: Tensor, other: Tensor) -> Tensor:
        """`x` (rows, in, H, W), `other` (rows, out, h, w)."""
        if self.care is not None and not self.care.suffices(x, other):
            return self.source.plain_added(x, other, rectified=self.rectified, pads=self.pads)
        return self.source.added(x, other, rectified=self.rectified, consumes=self.consumes, pads=self.pads)


@dataclass(eq=False, repr=False)
class FusedLinear:
    """y = activation(linear(x)).

    Attributes:
        source: the linear layer.
        activation: what follows it.
        care: as in `FusedConvolution`.
    """

    source: Linear
    activation: Activation = NOTHING
    care: Care | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """`x` (..., in)."""
        if self.care is not None and not self.care.suffices(x):
            return self.source.plain(x, self.activation)
        return self.source.forward(x, self.activation)


@dataclass(eq=False, repr=False)
class FusedAttention:
    """Self-attention over (rows, tokens, width) with its two linear layers fused; returns (output, None)."""

    inward: FusedLinear
    outward: FusedLinear
    heads: int
    care: Care | None = None  # as in `FusedConvolution`, of what nothing here would hide

    def __call__(self, query: Tensor, *_same: Tensor) -> tuple[Tensor, None]:
        """`query` is key and value as well."""
        if self.care is not None:
            self.care.suffices(query)
        rows, tokens, width = query.shape
        projected = self.inward(query).view(rows, tokens, 3, self.heads, width // self.heads)
        q, k, v = projected.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, tokens, width)
        return self.outward(mixed), None


@dataclass(frozen=True)
class Gate:
    """A squeeze-and-excitation gate between a depthwise convolution and the one behind it.

    Attributes:
        steps: what makes one factor per channel of its mean; the first takes the mean.
        fixed: constants that they read.
        most: what they take the result of the depthwise convolution to be smaller than, because what it reads would
            have been measured; None where it would not.
    """

    steps: tuple[Step, ...]
    fixed: Mapping[int, Any]
    most: float | None

    def factors(self, means: Tensor) -> Tensor:
        """From means (rows, M, 1, 1) to factors of that shape."""
        squeezed, *others = self.steps
        values: dict[int, Any] = {**self.fixed, squeezed.makes: means}
        for step in others:
            values[step.makes] = step.run(values)
        factors: Tensor = values[self.steps[-1].makes]
        return factors


@dataclass(eq=False, repr=False)
class FusedBottleneck:
    """Convolutions that follow each other as one step, or one after the other where that does not run them.

    Attributes:
        source: runs them as one.
        steps: what it stands for, in order.
        reads: the values that go in: what is convolved, and what is added in the end, if something is.
        fixed: constants that the steps read.
        gate: between the last two convolutions.
        consumes: whether nobody needs `other` afterwards, so that the sum may be made in its memory.
        care: as in `FusedConvolution`, of what is read.
        most: what follows takes the result to be smaller than this because the steps would have measured what lies
            between them; None where they would not.
    """

    source: Bottleneck
    steps: tuple[Step, ...]
    reads: tuple[int, ...]
    fixed: Mapping[int, Any]
    gate: Gate | None = None
    consumes: bool = False
    care: Care | None = None
    most: float | None = None

    def __call__(self, x: Tensor, *other: Tensor) -> Tensor:
        """`x` (rows, in, H, W), and what the last convolution adds, if it adds something."""
        if not ((self.care is None or self.care.suffices(x, *other)) and self.source.takes(x, *other)):
            return self._apart(x, *other)
        if self.gate is None:
            y = self.source.forward(x, *other, consumes=self.consumes)
        else:
            wide, means = self.source.squeezed(x)
            if self.gate.most is not None:
                expect(wide, self.gate.most)
            factors = self.gate.factors(means[:, :, None, None].to(x.dtype))
            y = self.source.gated(wide, factors.flatten(1), *other, consumes=self.consumes)
        if self.most is not None:
            expect(y, self.most)
        return y

    def _apart(self, *given: Tensor) -> Tensor:
        values: dict[int, Any] = {**self.fixed, **dict(zip(self.reads, given, strict=True))}
        for step in self.steps:
            values[step.makes] = step.run(values)
        y: Tensor = values[self.steps[-1].makes]
        return y


@dataclass(eq=False, repr=False)
class PooledConvolution:
    """A pointwise convolution of averages in the place of averages of a pointwise convolution, which is the same.

    It takes as many products as there are averages. Where a value is not of ordinary size, the order is the model's.

    Attributes:
        convolution: its step, fused.
        pool: the step behind it.
    """

    convolution: Step
    pool: Step

    def __call__(self, x: Tensor) -> Tensor:
        """`x` (rows, in, H, W)."""
        care = getattr(self.convolution.call, "care", None)
        ordinary = care is None or care.suffices(x)
        first, last = (self.pool, self.convolution) if ordinary else (self.convolution, self.pool)
        between = first.run({first.reads[0]: x})
        y: Tensor = last.run({last.reads[0]: between})
        return y


FusedStep = FusedConvolution | FusedResidual | FusedLinear | FusedAttention
