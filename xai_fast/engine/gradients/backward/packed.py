"""What is packed for a model's backwards: adjoints of its convolutions, and convolutions that sum up more exactly."""

from __future__ import annotations

from dataclasses import dataclass, field

from xai_fast.graph.onednn import PackedWeight

from .adjoint import Adjoint, adjoint_of

_BLOCK = 16  # input channels that oneDNN adds up at a time in the plain layout


@dataclass(frozen=True)
class Packed:
    """What has been packed for one model's backwards, whatever their shapes, layers and rules.

    Attributes:
        adjoints: per convolution and shape of its input.
        exact: per convolution of a network without normalisation, the same in shorter stretches.
    """

    adjoints: dict[tuple[PackedWeight, tuple[int, ...]], Adjoint] = field(default_factory=dict)
    exact: dict[PackedWeight, PackedWeight] = field(default_factory=dict)

    def adjoint(self, source: PackedWeight, shape: tuple[int, ...], *, short_sums: bool) -> Adjoint:
        """As `adjoint_of`."""
        if (source, shape) not in self.adjoints:
            self.adjoints[source, shape] = adjoint_of(source, shape, short_sums=short_sums)
        return self.adjoints[source, shape]

    def shortened(self, source: PackedWeight) -> PackedWeight:
        """The convolution in stretches so short that every sum is rounded as in the plain layout.

        Gradients turn on which side of a kink a ReLU's or a maximum's input falls, and scores do not, so that elsewhere
        stretches are longer. Without normalisation the inputs then fall to the same sides as in the caller's model.
        """
        channels, taps = source.weight.shape[1], source.weight[0, 0].numel()
        if source.geometry.groups > 1 or taps == 1 or channels % _BLOCK:
            return source
        if source not in self.exact:
            self.exact[source] = PackedWeight(source.weight, source.bias, source.geometry, channels // _BLOCK)
        return self.exact[source]
