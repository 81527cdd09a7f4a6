"""winograd_convolution: 3x3 convolutions of stride 1 with four products where the definition takes nine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from xai_fast.ops import _checks
from xai_fast.ops._dispatch import Op, lazily, not_on_cpu
from xai_fast.ops._library import compiled, no_library
from xai_fast.ops._panels import not_for_panels, side_by_side
from xai_fast.ops._traced import traced

_CHANNELS_LAST = torch.channels_last
_OF_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))


def winograd_kernels(weight: Tensor, panel: int) -> Tensor:
    """Transforms a weight (K, C, 3, 3) to (K / panel, 16, C / T, panel, T), computed in float64.

    T is how many channels lie side by side: 2 in bfloat16, where processors multiply pairs, else 1.

    Raises:
        ValueError: the weight is not of that shape, K is no multiple of `panel`, or C none of T.
    """
    together = side_by_side(weight.dtype)
    if weight.dim() != 4 or tuple(weight.shape[2:]) != (3, 3) or weight.shape[0] % panel or weight.shape[1] % together:
        raise ValueError(
            f"`weight` has shape {tuple(weight.shape)}; it takes (K, C, 3, 3), K a multiple of the panel {panel}"
            + (f" and C of {together}" if together > 1 else "")
        )
    matrix = torch.tensor(_OF_KERNEL, dtype=torch.float64, device=weight.device)
    both = torch.kron(matrix, matrix)  # (16, 9)
    panels = weight.detach().contiguous().flatten(2).unflatten(0, (-1, panel))  # (K / P, P, C, 9)
    kernels = weight.new_empty(len(panels), 16, weight.shape[1] // together, panel, together).detach()
    for some, out in zip(panels, kernels, strict=True):  # a panel at a time, whose float64 stays in the cache
        found = both @ some.double().mT  # (P, 16, C)
        out.copy_(found.permute(1, 2, 0).unflatten(1, (-1, together)).mT)
    return kernels


def not_for_registers(
    inputs: Tensor, kernels: Tensor, _bias: Tensor | None, other: Tensor | None, out: Tensor, *_: Any
) -> str | None:
    """Refuses what the kernel's vectors do not fit."""
    panel = kernels.shape[3]
    if inputs.shape[1] % max(panel // 2, 1):
        return f"the channels do not come in panels of {panel} out and {panel // 2} in"
    return not_for_panels(kernels.dtype, panel, (inputs, other, out), (kernels,))


op = Op("winograd_convolution", lazily(f"{__name__}.reference", "winograd_convolution"), in_place=("other",))
op.offer("cpp", compiled("winograd_convolution"), unless=(no_library, not_on_cpu, not_for_registers))


@traced("(Tensor inputs, Tensor kernels, Tensor? bias, Tensor? other, Tensor(a!) out, int padding, bool relu) -> ()")
def winograd_convolution(
    inputs: Tensor, kernels: Tensor, bias: Tensor | None, other: Tensor | None, out: Tensor, padding: int, relu: bool
) -> Tensor:
    """Fills `out` with `relu(conv2d(inputs, weight, bias, padding=padding) + other)`, both optional parts aside.

    Minimal filtering F(2x2, 3x3) of Winograd, in the form of Lavin and Gray (2016, arXiv:1509.09308, section 4.1):
    2.25 times fewer products. Rounding is that of the definition or less, since sums run over channels only. What a
    row gives does not depend on the rows beside it. In bfloat16 sums are of float32; transformed patches are rounded to
    bfloat16 as transformed kernels are, which errs up to twice as much as the definition on the same inputs.

    Args:
        inputs: (N, C, H, W) float32, float64 or bfloat16, any strides.
        kernels: (K / P, 16, C / T, P, T), what `winograd_kernels` makes of a weight (K, C, 3, 3), of the same dtype.
        bias: (K,) or None, any stride.
        other: (N, K, H', W') or None, any strides; added before the ReLU.
        out: (N, K, H', W'), H' = H + 2 * padding - 2, any memory layout. Gradients do not pass. It may be `other`.
        padding: zeros around the inputs on each side, 0 to 2.
        relu: whether negative results become 0.

    Returns:
        `out`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape or a device does not fit.

    Cost: about 32 * N * C * K * ceil(H' / 2) * ceil(W' / 2) operations; scratch memory of at most 5 KB * C per thread.
    """
    _check(inputs, kernels, bias, other, out, padding)
    bias = None if bias is None else bias.contiguous()
    op(inputs, kernels, bias, other, out, padding, relu)
    increment_version(out)
    return out


def _check(
    inputs: Tensor, kernels: Tensor, bias: Tensor | None, other: Tensor | None, out: Tensor, padding: int
) -> None:
    _checks.check_dtype("inputs", inputs, (torch.float32, torch.float64, torch.bfloat16))
    if not 0 <= padding <= 2:
        raise ValueError(f"`padding` is {padding}; it takes 0, 1 or 2")
    if inputs.dim() != 4 or min(inputs.shape[2:]) + 2 * padding < 3:
        raise ValueError(
            f"`inputs` has shape {tuple(inputs.shape)}; it takes (N, C, H, W) with at least 3 positions a side, "
            "padding included"
        )
    together = side_by_side(inputs.dtype)
    fits = kernels.dim() == 5 and tuple(kernels.shape[1:5:3]) == (16, together)
    if not fits or kernels.shape[2] * together != inputs.shape[1]:
        raise ValueError(
            f"`kernels` has shape {tuple(kernels.shape)}; it takes (K / P, 16, {inputs.shape[1] // together}, P, "
            f"{together}), which `winograd_kernels` makes"
        )
    count = kernels.shape[0] * kernels.shape[3]
    size = [extent + 2 * padding - 2 for extent in inputs.shape[2:]]
    _checks.check_shape("out", out, (inputs.shape[0], count, *size), "(N, K, H', W')")
    if other is not None:
        _checks.check_shape("other", other, tuple(out.shape), "(N, K, H', W')")
    if bias is not None:
        _checks.check_shape("bias", bias, (count,), "(K,)")
    for name, value in {"kernels": kernels, "bias": bias, "other": other, "out": out}.items():
        if value is not None:
            _checks.check_dtype(name, value, (inputs.dtype,))
            _checks.check_device(name, value, inputs.device, "inputs")
