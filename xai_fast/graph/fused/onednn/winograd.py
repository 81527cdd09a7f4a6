"""3x3 convolutions of stride 1 by minimal filtering, where our kernel takes them: fewer products, no more rounding."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from xai_fast.graph.processor import said
from xai_fast.ops import Repeated, all_ops, register_panel, winograd_convolution, winograd_kernels

_PANEL = 16  # where the plain op is to stand in for a kernel
_USED = 0.5  # share of the positions in tiles of 2x2 that are results, below which the direct sum has less to do


def _repeated() -> Repeated:
    return Repeated(all_ops()["winograd_convolution"], winograd_convolution)


@dataclass(frozen=True, eq=False, repr=False)
class MinimalFilter:
    """A convolution's weight transformed for minimal filtering.

    Attributes:
        kernels: (K / P, 16, C / T, P, T), as `winograd_kernels` makes them.
        bias: (K,).
    """

    kernels: Tensor
    bias: Tensor | None
    _run: Repeated = field(default_factory=_repeated)

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> MinimalFilter | None:
        """The transformed weight (K, C, 3, 3); None where the kernel's vectors do not fit its channels."""
        panel = register_panel(weight.dtype) or (_PANEL if said().minimal else 0)
        if (
            said().minimal is False
            or not panel
            or weight.shape[0] % panel
            or weight.shape[1] % (panel // 2)
            or tuple(weight.shape[2:]) != (3, 3)
        ):
            return None
        return cls(winograd_kernels(weight, panel), None if bias is None else bias.detach())

    def pays(self, x: Tensor, padding: int) -> bool:
        """Whether it does less than the direct sum for inputs like `x` (rows, C, H, W), and can run.

        Where few tiles share the weights, which are 16/9 of the direct ones, it is no faster but still more exact.
        """
        height, width = (extent + 2 * padding - 2 for extent in x.shape[2:])
        if height * width < 4 * _USED * -(-height // 2) * -(-width // 2):
            return False
        if said().minimal or self._run.knows(x):
            return True
        return all_ops()["winograd_convolution"].compiled(x, self.kernels, self.bias, None, x)

    def __call__(self, x: Tensor, padding: int, other: Tensor | None, out: Tensor | None, *, relu: bool) -> Tensor:
        """The convolution, plus `other`, rectified or not, in the memory of `out` or in its own."""
        if out is None:
            count = self.kernels.shape[0] * self.kernels.shape[3]
            size = (len(x), count, *(extent + 2 * padding - 2 for extent in x.shape[2:]))
            out = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
        self._run((x, other), out, x, self.kernels, self.bias, other, out, padding, relu)
        return out
