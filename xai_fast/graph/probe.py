"""Whether oneDNN's private operators may be used here: they are tried once against the public ones."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from .linear import FusedLinear
from .onednn import NOTHING, Activation, FusedConvolution, FusedResidual, Geometry, PackedWeight
from .processor import said
from .transposed import PackedTransposed


def refusal() -> str | None:
    """Why the private operators are not used here; None where they gave what the public ones give."""
    return "they are not to be used" if said().fused is False else _failed()


@functools.cache
def _failed() -> str | None:
    if not torch.backends.mkldnn.is_available():
        return "torch was built without oneDNN"
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    x = draw(2, 8, 6, 5).contiguous(memory_format=torch.channels_last)
    other = draw(2, 16, 6, 5).contiguous(memory_format=torch.channels_last)
    weight, bias = draw(16, 8, 3, 3), draw(16)
    geometry = Geometry((1, 1), (1, 1), (1, 1), 1)
    y = F.conv2d(x, weight, bias, padding=1)
    tokens, matrix = draw(3, 7, 8), draw(16, 8)
    try:
        with torch.no_grad():
            for activation in (Activation("relu"), Activation("swish"), Activation("gelu", (), "none"), NOTHING):
                _check(FusedConvolution(PackedWeight(weight, bias, geometry), activation)(x), activation(y.clone()))
                packed = torch.ops.mkldnn._reorder_linear_weight(matrix, 21)
                linear = FusedLinear(matrix, bias, activation)
                _check(linear._fused(tokens, packed), linear._plain(tokens))
            for parts in (1, 2):
                source = PackedWeight(weight, bias, geometry, parts)
                _check(FusedConvolution(source, Activation("relu"))(x), y.relu())
                _check(FusedConvolution(source, Activation("tanh"))(x), y.tanh())
                _check(FusedResidual(source, rectified=True, consumes=False)(x, other), (y + other).relu())
            _check_transposed(draw(4, 4, 3, 3), draw(2, 4, 3, 3))
    except Exception as error:  # private operators may change in any way
        return f"oneDNN's fused operators failed their test ({type(error).__name__}: {error})"
    return None


def _check_transposed(weight: Tensor, gradient: Tensor) -> None:
    """Strided input gradients, of one row and of several, with positions that the stride leaves out."""
    for groups in (1, 2):
        own = weight[:, : 4 // groups].contiguous()
        packed = PackedTransposed(own, Geometry((2, 2), (1, 1), (1, 1), groups), (4, 6, 6))
        for rows in (1, 2):
            plain = F.conv_transpose2d(gradient[:rows], own, None, 2, 1, 1, groups)
            _check(packed(gradient[:rows]), plain)


def _check(fused: Tensor, plain: Tensor) -> None:
    if fused.shape != plain.shape or not torch.allclose(fused, plain, rtol=1e-5, atol=1e-5):
        raise ArithmeticError("they give other numbers than the public ones")
