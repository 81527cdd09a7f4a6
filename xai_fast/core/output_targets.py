"""Targets that are formulas of a model's whole output: likeness to an embedding, a region's class.

What they take is one tensor for every input, or one entry per input, N of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .plain import plain
from .scores import Classes, entries, entries_at, find_scores, refuse_other_rows


@dataclass(frozen=True, eq=False)
class OutputTarget:
    """A callable target; what the functions of this module return.

    Attributes:
        name: for messages and records.
        given: by argument, what the formula takes: (1, ...) for every input, or (N, ...).
        formula: (raw output, one tensor (rows, ...) per entry of `given`) to (rows,).
    """

    name: str
    given: Mapping[str, Tensor]
    formula: Callable[..., Tensor]

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in self.given.items() if len(values) > 1}
        if len(set(lengths.values())) > 1:
            came = " and ".join(f"`{name}` {length}" for name, length in lengths.items())
            raise ValueError(f"{came} entries do not belong to the same inputs; give one for all, or one per input")

    def __call__(self, output: Any, sample: Tensor) -> Tensor:
        """The value (rows,) of each row of a raw output, rows being variants of the inputs `sample` (rows,)."""
        return self.formula(output, *(entries_at(name, values, sample) for name, values in self.given.items()))

    def __repr__(self) -> str:
        """Short, because it is what a picture of the explanation is labelled with."""
        return f"{self.name}({', '.join(f'{name}={in_short(values)}' for name, values in self.given.items())})"


def similarity(embedding: Tensor) -> OutputTarget:
    """cos(e, embedding), in [-1, 1], where the model's output (rows, D) is the embedding e: why are these two alike?

    Args:
        embedding: (D,), or (N, D) for one per input; one that is 0 has no direction and is refused.
    """
    given = floating("embedding", embedding, (1, 2), "(D,) or (N, D)")
    if not given.any(-1).all():
        raise ValueError("`embedding` is 0 everywhere, which has no direction; give another")

    def cosine(output: Any, embedding: Tensor) -> Tensor:
        found = find_scores(output)
        if found.ndim != 2 or found.shape[1] != embedding.shape[1]:
            raise ValueError(
                f"`embedding` has {embedding.shape[1]} elements and the model returned {tuple(found.shape)}; "
                "give as many as an embedding (rows, D) of the model's has"
            )
        refuse_other_rows("the model", found, len(embedding))
        return F.cosine_similarity(found, embedding.to(found), dim=1)

    return OutputTarget("similarity", {"embedding": given}, cosine)


def region(mask: Tensor, classes: Classes) -> OutputTarget:
    """The mean score of a class over a mask's pixels: why does a segmentation network call this region that?

    Networks return (rows, K, H, W), alone or as `out` in a dict, as torchvision's do; of volumes (rows, K, D, H, W).

    Args:
        mask: (H, W) of the output's size, or (N, H, W) for one per input; of volumes (N, D, H, W), where N may be 1 for
            all of them. Bool, or weights that are not negative.
        classes: whose score is meant.
    """
    fits = "(H, W), (N, H, W) or, of volumes, (N, D, H, W)"
    mask = plain("mask", mask) if isinstance(mask, Tensor) else mask
    is_bool = isinstance(mask, Tensor) and mask.dtype is torch.bool
    given = floating("mask", mask.float() if is_bool else mask, (2, 3, 4), fits)
    if (given < 0).any() or not given.flatten(1).any(1).all():
        raise ValueError(
            "`mask` holds negative weights or is 0 everywhere; give at least one pixel of each mask a weight"
        )

    def mean(output: Any, mask: Tensor, index: Tensor) -> Tensor:
        scores = find_scores(output)
        if scores.ndim not in (4, 5) or scores.shape[2:] != mask.shape[1:]:
            raise ValueError(
                f"`mask` is of size {tuple(mask.shape[1:])} and the model returned {tuple(scores.shape)}; "
                f"give {fits} of the size of an output (rows, K, H, W) or (rows, K, D, H, W)"
            )
        refuse_other_rows("the model", scores, len(index))
        if int(index.max()) >= scores.shape[1]:
            raise ValueError(f"`classes` holds {int(index.max())}; the model has {scores.shape[1]}, counted from 0")
        maps = scores[torch.arange(len(scores), device=scores.device), index.to(scores.device)].flatten(1)
        weights = mask.to(scores).flatten(1)
        return (maps * weights).sum(1) / weights.sum(1)

    return OutputTarget("region", {"mask": given, "classes": entries("classes", classes)}, mean)


def floating(name: str, values: Any, axes: tuple[int, ...], fits: str) -> Tensor:
    """A copy (1, ...) or (N, ...) of a floating tensor that has so many axes, the fewest where it is one entry."""
    if not isinstance(values, Tensor) or not values.is_floating_point():
        came = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"`{name}` came as {came}; give a floating tensor {fits}")
    values = plain(name, values)
    if values.ndim not in axes or 0 in values.shape or not values.isfinite().all():
        raise ValueError(f"`{name}` of shape {tuple(values.shape)} does not fit or is not finite; give {fits}")
    values = values.detach().clone()
    return values[None] if values.ndim == axes[0] else values


def in_short(values: Tensor) -> str:
    """For messages and labels: one small entry in full, anything else by its shape."""
    if len(values) == 1 and values.numel() <= 4:
        numbers = [round(value, 4) for value in values.flatten().tolist()]
        return str(numbers[0] if values.ndim == 1 else numbers)
    return f"tensor {tuple(values.shape)}"
