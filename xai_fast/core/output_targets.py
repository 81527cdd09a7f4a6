"""Targets that are formulas of a model's whole output: likeness to an embedding, a box still found, a region's class.

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
        return f"{self.name}({', '.join(f'{name}={_in_short(values)}' for name, values in self.given.items())})"


def similarity(embedding: Tensor) -> OutputTarget:
    """cos(e, embedding), in [-1, 1], where the model's output (rows, D) is the embedding e: why are these two alike?

    Args:
        embedding: (D,), or (N, D) for one per input; one that is 0 has no direction and is refused.
    """
    given = _floating("embedding", embedding, (1, 2), "(D,) or (N, D)")
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


def detection(boxes: Tensor, labels: Classes) -> OutputTarget:
    """How surely a detector still finds an object: the largest IoU times class probability of its boxes, in [0, 1].

    The similarity by which D-RISE weights its masks (Petsiuk et al. 2021, arXiv:2006.03204), with the object certain
    of its class. Detectors return a dict per row, as torchvision's do: `boxes` (n, 4), and either `labels` (n,) with
    their `scores` (n,), or `scores` (n, K) for all classes. Where no box of that class overlaps, the value is 0. A
    detector that drops unsure boxes (torchvision: below `box_score_thresh`, 0.05 by default) makes that happen sooner.

    Args:
        boxes: (4,), or (N, 4) for one per input: x1, y1, x2, y2 in the units of the detector's own boxes.
        labels: the object's class, as the detector counts (torchvision: 0 is the background).
    """
    given = _floating("boxes", boxes, (1, 2), "(4,) or (N, 4)")
    if given.shape[1] != 4 or not (given[:, :2] < given[:, 2:]).all():
        raise ValueError(f"`boxes` came as {_in_short(given)}; give x1, y1, x2, y2 with x1 < x2 and y1 < y2")

    def found(output: Any, boxes: Tensor, labels: Tensor) -> Tensor:
        if not isinstance(output, list | tuple) or len(output) != len(boxes):
            raise TypeError(_no_detector(output, len(boxes)))
        return torch.stack([_best(*one) for one in zip(output, boxes, labels.tolist(), strict=True)])

    return OutputTarget("detection", {"boxes": given, "labels": entries("labels", labels)}, found)


def region(mask: Tensor, classes: Classes) -> OutputTarget:
    """The mean score of a class over a mask's pixels: why does a segmentation network call this region that?

    Networks return (rows, K, H, W), alone or as `out` in a dict, as torchvision's do.

    Args:
        mask: (H, W) of the output's size, or (N, H, W) for one per input: bool, or weights that are not negative.
        classes: whose score is meant.
    """
    mask = plain("mask", mask) if isinstance(mask, Tensor) else mask
    is_bool = isinstance(mask, Tensor) and mask.dtype is torch.bool
    given = _floating("mask", mask.float() if is_bool else mask, (2, 3), "(H, W) or (N, H, W)")
    if (given < 0).any() or not given.any((1, 2)).all():
        raise ValueError(
            "`mask` holds negative weights or is 0 everywhere; give at least one pixel of each mask a weight"
        )

    def mean(output: Any, mask: Tensor, index: Tensor) -> Tensor:
        scores = find_scores(output)
        if scores.ndim != 4 or scores.shape[2:] != mask.shape[1:]:
            raise ValueError(
                f"`mask` is of size {tuple(mask.shape[1:])} and the model returned {tuple(scores.shape)}; "
                "give one of the size (H, W) of an output (rows, K, H, W)"
            )
        refuse_other_rows("the model", scores, len(index))
        if int(index.max()) >= scores.shape[1]:
            raise ValueError(f"`classes` holds {int(index.max())}; the model has {scores.shape[1]}, counted from 0")
        planes = scores[torch.arange(len(scores), device=scores.device), index.to(scores.device)]
        weights = mask.to(scores)
        return (planes * weights).sum((1, 2)) / weights.sum((1, 2))

    return OutputTarget("region", {"mask": given, "classes": entries("classes", classes)}, mean)


def _floating(name: str, values: Any, axes: tuple[int, int], fits: str) -> Tensor:
    """A copy (1, ...) or (N, ...) of a floating tensor that has the axes of one entry, or one more."""
    if not isinstance(values, Tensor) or not values.is_floating_point():
        came = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"`{name}` came as {came}; give a floating tensor {fits}")
    values = plain(name, values)
    if values.ndim not in axes or 0 in values.shape or not values.isfinite().all():
        raise ValueError(f"`{name}` of shape {tuple(values.shape)} does not fit or is not finite; give {fits}")
    values = values.detach().clone()
    return values[None] if values.ndim == axes[0] else values


def _best(found: Mapping[str, Tensor], box: Tensor, label: int) -> Tensor:
    """The largest IoU times class probability (a scalar) over the boxes that a detector found in one row."""
    boxes, scores = found["boxes"], found["scores"]
    if scores.ndim == 2:
        scores = scores[:, label]
    else:
        boxes, scores = boxes[found["labels"] == label], scores[found["labels"] == label]
    return (_overlap(boxes, box.to(boxes)) * scores).amax() if len(boxes) else boxes.sum()


def _overlap(boxes: Tensor, box: Tensor) -> Tensor:
    """Intersection over union (n,) of `boxes` (n, 4) with one `box` (4,)."""
    sides = torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])
    common = sides.clamp_min(0).prod(1)
    return common / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - common)


def _no_detector(output: Any, rows: int) -> str:
    return (
        f"`target` detection needs a detector's output, one dict with `boxes`, `labels` and `scores` for each of "
        f"{rows} rows, and the model returned {type(output).__name__}"
    )


def _in_short(values: Tensor) -> str:
    """One small entry in full, anything else by its shape."""
    if len(values) == 1 and values.numel() <= 4:
        numbers = [round(value, 4) for value in values.flatten().tolist()]
        return str(numbers[0] if values.ndim == 1 else numbers)
    return f"tensor {tuple(values.shape)}"
