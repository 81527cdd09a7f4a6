"""gated_pointwise: a pointwise convolution of what a squeeze-and-excitation gate lets through, which is not stored."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from xai_fast.ops import _checks
from xai_fast.ops._dispatch import Op, lazily, not_on_cpu
from xai_fast.ops._library import compiled, no_library, older_than
from xai_fast.ops._panels import not_for_panels, side_by_side
from xai_fast.ops._traced import traced

_DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def not_for_registers(
    inputs: Tensor, gate: Tensor, project: Tensor, bias: Tensor, other: Tensor | None, out: Tensor
) -> str | None:
    """Refuses what the kernel's vectors do not fit."""
    return not_for_panels(inputs.dtype, project.shape[2], (inputs, other, out), (gate, project, bias))


op = Op("gated_pointwise", lazily(f"{__name__}.reference", "gated_pointwise"), in_place=("other",))
op.offer(
    "cpp",
    compiled("gated_pointwise"),
    unless=(no_library, older_than("gated_pointwise"), not_on_cpu, not_for_registers),
)


@traced("(Tensor inputs, Tensor gate, Tensor project, Tensor project_bias, Tensor? other, Tensor(a!) out) -> ()")
def gated_pointwise(
    inputs: Tensor, gate: Tensor, project: Tensor, project_bias: Tensor, other: Tensor | None, out: Tensor
) -> Tensor:
    """Fills `out` with `conv2d(inputs * gate, weight, bias) + other`: the end of a block with squeeze and excitation.

    Hu et al. 2018 (arXiv:1709.01507). The gated map is never stored; in bfloat16 it is rounded once, and sums are of
    float32. What a row gives does not depend on the rows beside it.

    Args:
        inputs: (N, M, H, W) float32, float64 or bfloat16, any strides.
        gate: (N, M) float32, of float64 inputs float64, any strides.
        project: (K / P, M / T, P, T), both in whole panels, of the inputs' dtype: `bottleneck_weights` makes it.
        project_bias: (K,) in whole panels, of the gate's dtype.
        other: (N, K, H, W) or None, any strides.
        out: (N, K, H, W), any memory layout. Gradients do not pass. It may be `other`.

    Returns:
        `out`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape or a device does not fit.

    Cost: 2 * N * H * W * M * K operations; scratch memory of 28 * M numbers per thread.
    """
    _check(inputs, gate, project, project_bias, other, out)
    op(inputs, gate.contiguous(), project, project_bias, other, out)
    increment_version(out)
    return out


def _check(
    inputs: Tensor, gate: Tensor, project: Tensor, project_bias: Tensor, other: Tensor | None, out: Tensor
) -> None:
    _checks.check_dtype("inputs", inputs, _DTYPES)
    if inputs.dim() != 4:
        raise ValueError(f"`inputs` has shape {tuple(inputs.shape)}; it takes (N, M, H, W)")
    rows, channels, *size = inputs.shape
    _checks.check_shape("gate", gate, (rows, channels), "(N, M)")
    together = side_by_side(inputs.dtype)
    panel = project.shape[2] if project.dim() == 4 else 0
    if panel < 2 or project.shape[3] != together or project.shape[1] * together != -(-channels // panel) * panel:
        raise ValueError(
            f"`project` has shape {tuple(project.shape)}; of {channels} channels it takes (K/P, M/T, P, {together}), "
            "which `bottleneck_weights` makes"
        )
    results = len(project) * panel
    _checks.check_shape("project_bias", project_bias, (results,), "(K,)")
    if out.dim() != 4 or not results - panel < out.shape[1] <= results:
        raise ValueError(f"`out` has shape {tuple(out.shape)}; it takes (N, K, H, W), K above {results - panel}")
    _checks.check_shape("out", out, (rows, out.shape[1], *size), "(N, K, H, W)")
    if other is not None:
        _checks.check_shape("other", other, tuple(out.shape), "(N, K, H, W)")
    wide = torch.float64 if inputs.dtype is torch.float64 else torch.float32
    values = {"gate": gate, "project": project, "project_bias": project_bias, "other": other, "out": out}
    for name, value in values.items():
        if value is not None:
            _checks.check_dtype(name, value, (wide if name in ("gate", "project_bias") else inputs.dtype,))
            _checks.check_device(name, value, inputs.device, "inputs")
