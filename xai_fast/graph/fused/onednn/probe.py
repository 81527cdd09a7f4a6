"""Whether oneDNN's private operators may be used here: they are tried once against the public ones."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from xai_fast.graph.fused.parts import NOTHING, RELU, Activation, Geometry

from .convolution import PackedConvolution
from .gradients import Transposed
from .linear import PackedLinear


@functools.cache
def failed(dtype: torch.dtype = torch.float32) -> str | None:
    """Why the private operators are not used here; None where they gave what the public ones give in that dtype."""
    if not torch.backends.mkldnn.is_available():
        return "torch was built without oneDNN"
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    x = draw(2, 8, 6, 5).contiguous(memory_format=torch.channels_last)
    other = draw(2, 16, 6, 5).contiguous(memory_format=torch.channels_last)
    weight, bias = draw(16, 8, 3, 3), draw(16)
    geometry = Geometry((1, 1), (1, 1), (1, 1), 1)
    y = F.conv2d(x, weight, bias, padding=1)
    tokens, matrix = draw(3, 7, 8), draw(16, 8)
    try:
        with torch.no_grad():
            for activation in (RELU, Activation("silu"), Activation("gelu", (), "none"), NOTHING):
                source = PackedConvolution(weight, bias, geometry)
                _check(source.forward(x, activation), activation(y.clone()))
                packed, linear = torch.ops.mkldnn._reorder_linear_weight(matrix, 21), PackedLinear(matrix, bias)
                _check(linear.fused(tokens, packed, activation), linear.plain(tokens, activation))
            for parts in (1, 2):
                source = PackedConvolution(weight, bias, geometry, parts)
                _check(source.forward(x, RELU), y.relu())
                _check(source.forward(x, Activation("tanh")), y.tanh())
                _check(source.added(x, other, rectified=True, consumes=False), (y + other).relu())
            _check_transposed(draw(4, 4, 3, 3), draw(2, 4, 3, 3))
    except Exception as error:  # private operators may change in any way
        return f"oneDNN's fused operators failed their test ({type(error).__name__}: {error})"
    return None


def _check_transposed(weight: Tensor, gradient: Tensor) -> None:
    """Strided input gradients, of one row and of several, with positions that the stride leaves out."""
    for groups in (1, 2):
        own = weight[:, : 4 // groups].contiguous()
        transposed = Transposed(own, Geometry((2, 2), (1, 1), (1, 1), groups))
        for rows in (1, 2):
            plain = F.conv_transpose2d(gradient[:rows], own, None, 2, 1, 1, groups)
            _check(transposed(gradient[:rows], (4, 6, 6), None), plain)


def _check(fused: Tensor, plain: Tensor) -> None:
    close = 1e-5 if plain.dtype is torch.float32 else 0.05  # bfloat16 is rounded once where steps are fused
    if fused.shape != plain.shape or not torch.allclose(fused, plain, rtol=close, atol=close):
        raise ArithmeticError("they give other numbers than the public ones")
