"""surrogate_normal: add rows to the weighted normal equations of a linear surrogate with an intercept."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from xai_fast.ops import _checks
from xai_fast.ops._dispatch import Op, lazily, no_triton, not_on_cpu, not_on_cuda
from xai_fast.ops._library import compiled, no_library
from xai_fast.ops._traced import traced

op = Op("surrogate_normal", lazily(f"{__name__}.reference", "surrogate_normal"), writes=("gram", "moment"))
op.offer("cpp", compiled("surrogate_normal"), unless=(no_library, not_on_cpu))
op.offer("triton", lazily(f"{__name__}.triton", "surrogate_normal"), unless=(no_triton, not_on_cuda))


@traced(
    "(Tensor keep, Tensor weights, Tensor scores, Tensor(a!) gram, Tensor(b!) moment) -> ()", returns=("gram", "moment")
)
def surrogate_normal(
    keep: Tensor, weights: Tensor, scores: Tensor, gram: Tensor, moment: Tensor
) -> tuple[Tensor, Tensor]:
    """Adds X' diag(w) X to `gram` and X' diag(w) s to `moment`, with X = [1, keep].

    A surrogate c minimises the sum of w (s - X c)^2 over all rows where gram c = moment; its first coefficient is the
    intercept. Rows may come in any number of calls, all into the same two sums, which start from zeros (or from what a
    penalty puts there). Everything is float64. The kernels add in an order that no number of threads changes, the
    compiled one row after row, so that pieces give the bits of one call; the reference multiplies matrices.

    Args:
        keep: BoolTensor (M, K): which of K segments each row shows.
        weights: float64 (M,).
        scores: float64 (M, T): what the model says to each row, for T targets.
        gram: float64 (1 + K, 1 + K), contiguous and symmetric, which the caller vouches for.
        moment: float64 (1 + K, T), contiguous. The sums share no memory with each other or with the rest.

    `scores`, `gram` and `moment` are on one device; `keep` and `weights` there or on the CPU. Gradients do not pass.

    Returns:
        `gram` and `moment`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, a device or a memory layout does not fit.
    """
    _check(keep, weights, scores, gram, moment)
    rows = (value.to(gram.device).contiguous() for value in (keep, weights, scores))
    op(*rows, gram, moment)
    increment_version([gram, moment])  # kernels write behind autograd's back: a graph that saved a sum must notice
    return gram, moment


def _check(keep: Tensor, weights: Tensor, scores: Tensor, gram: Tensor, moment: Tensor) -> None:
    _checks.check_dtype("keep", keep, (torch.bool,))
    for name, value in {"weights": weights, "scores": scores, "gram": gram, "moment": moment}.items():
        _checks.check_dtype(name, value, (torch.float64,))
    if keep.dim() != 2:
        raise ValueError(f"`keep` has shape {tuple(keep.shape)}; it takes (M, K), a row per coalition")
    rows, unknowns = keep.shape[0], 1 + keep.shape[1]
    targets = scores.shape[1] if scores.dim() == 2 else 1
    _checks.check_shape("weights", weights, (rows,), "(M,)")
    _checks.check_shape("scores", scores, (rows, targets), "(M, T)")
    _checks.check_shape("gram", gram, (unknowns, unknowns), "(1 + K, 1 + K)")
    _checks.check_shape("moment", moment, (unknowns, targets), "(1 + K, T)")
    for name, value in {"scores": scores, "moment": moment}.items():
        _checks.check_device(name, value, gram.device, "gram")
    for name, value in {"keep": keep, "weights": weights}.items():
        if not value.is_cpu:
            _checks.check_device(name, value, gram.device, "gram")
    for name, value in {"gram": gram, "moment": moment}.items():
        if not value.is_contiguous():
            raise ValueError(f"`{name}` has strides {value.stride()}; it takes a contiguous tensor")
