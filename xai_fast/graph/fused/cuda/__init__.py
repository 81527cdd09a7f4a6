"""Fused steps on GPUs: convolution, bias, sum and ReLU in one kernel or two, small forwards as CUDA graphs.

Both are found out by trying where they run, and left alone where they gain nothing; what they cannot take goes through
the public operators.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xai_fast.graph.fused.parts import Geometry
from xai_fast.graph.fused.public import Convolution, PublicOperators
from xai_fast.graph.program import Program, Runs
from xai_fast.graph.steps import Graph

from .convolution import JoinedConvolution


class Cuda(PublicOperators):
    """Runs cuDNN, our kernels and graphs. What hides NaN is not used, so nothing needs care."""

    name = "cuda"

    def refusal(self, device: torch.device, dtype: torch.dtype, *, reduced: bool) -> str | None:
        """See `PublicOperators`."""
        if device.type != "cuda" or not torch.cuda.is_available():
            return "there is no such GPU here"
        return None

    def convolution(
        self, weight: Tensor, bias: Tensor | None, geometry: Geometry, *, short_sums: bool
    ) -> Convolution | None:
        """See `PublicOperators`."""
        alike = bias is None or bias.dtype is weight.dtype
        return (JoinedConvolution if alike else Convolution)(weight, bias, geometry)

    def repeated(self, program: Program, graph: Graph) -> Runs:
        """See `PublicOperators`."""
        from .recorded import Recorded  # what it looks at steps with is slow to import

        return Recorded(program, graph)
