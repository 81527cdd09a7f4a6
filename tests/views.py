"""Tensors whose memory is not what they stand for, each made of a plain one."""

from __future__ import annotations

import torch


class Marked(torch.Tensor):
    """A subclass that changes nothing."""


def wider(value):
    """Every second element of a wider tensor, and not at its start."""
    if value.dim() == 0:
        return value
    memory = value.new_zeros(*value.shape[:-1], 2 * value.shape[-1] + 1)
    memory[..., 1::2] = value
    return memory[..., 1::2]


VIEWS = {
    "negated": lambda value: torch._neg_view(-value) if value.dtype is not torch.bool else value,
    "sliced": wider,
    "transposed": lambda value: value.mT.contiguous().mT if value.dim() > 1 else value,
    "reversed memory": lambda value: (
        value.permute(*reversed(range(value.dim()))).contiguous().permute(*reversed(range(value.dim())))
    ),
    "of a subclass": lambda value: value.as_subclass(Marked),
    "requiring a gradient": lambda value: value.clone().requires_grad_() if value.is_floating_point() else value,
}
