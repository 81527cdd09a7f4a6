"""oneDNN's prepacked transposed convolution, through the operator that torch keeps for its own compiler.

As private as those in `onednn.py`, and probed with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .onednn import Geometry


@dataclass(eq=False, repr=False)
class PackedTransposed:
    """The input gradient of a convolution of any geometry, packed on demand for the gradients that come.

    Attributes:
        weight: (out, in / groups, h, w) of the convolution.
        geometry: of the convolution.
        shape: (in, H, W) of its input.
    """

    weight: Tensor
    geometry: Geometry
    shape: tuple[int, ...]
    _packed: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, gradient: Tensor) -> Tensor:
        """`gradient` (rows, out, h, w) by the convolution's output; returns (rows, in, H, W)."""
        stride, padding, dilation, groups = self._geometry()
        few = min(len(gradient), 2)  # as in `PackedWeight.packed`
        left = [
            size - (s * (n - 1) - 2 * p + d * (k - 1) + 1)
            for size, s, n, p, d, k in zip(
                self.shape[1:], stride, gradient.shape[2:], padding, dilation, self.weight.shape[2:], strict=True
            )
        ]
        if few not in self._packed:
            weight = self.weight.detach().contiguous(memory_format=torch.channels_last)
            self._packed[few] = torch.ops.mkldnn._reorder_convolution_transpose_weight(
                weight, padding, left, stride, dilation, groups, list(gradient.shape)
            )
        return torch.ops.mkldnn._convolution_transpose_pointwise(
            gradient, self._packed[few], None, padding, left, stride, dilation, groups, "none", [], ""
        )

    def _geometry(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
        geometry = self.geometry
        return geometry.stride, geometry.padding, geometry.dilation, geometry.groups
