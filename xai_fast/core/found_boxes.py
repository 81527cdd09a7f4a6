"""What detectors found, in one form, whatever they return: boxes by their corners, and the score of each class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .scores import named_parts

Read = Callable[[Any], Any]
# Hugging Face's outputs of models whose last class is "no object"; all of its others score each class by a sigmoid.
_SOFTMAX = ("Detr", "Yolos", "TableTransformer")
_FITS = (
    "a dict per row with `boxes`, `labels` and `scores` (torchvision), one tensor (rows, 4 + classes, n) of centres, "
    "sizes and class probabilities (YOLO), or a Hugging Face output with `logits` and `pred_boxes` (DETR)"
)
_APART = 0.5  # of their union, the most that two boxes of different objects share


@dataclass(frozen=True, eq=False)
class FoundBoxes:
    """The boxes of one row.

    Attributes:
        boxes: (n, 4), x1, y1, x2, y2 in the detector's units.
        scores: (n,) of `labels`, or (n, K) for all classes.
        labels: LongTensor (n,); None where there are scores for all classes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor | None

    def of_class(self, label: int) -> tuple[Tensor, Tensor]:
        """The boxes that may be of a class, (m, 4), and its score for each, (m,).

        Raises:
            ValueError: there is no such class.
        """
        if self.labels is not None:
            return self.boxes[self.labels == label], self.scores[self.labels == label]
        if label >= self.scores.shape[1]:
            raise ValueError(f"`labels` holds {label}; the detector has {self.scores.shape[1]} classes, counted from 0")
        return self.boxes, self.scores[:, label]

    @torch.no_grad()
    def surest(self, count: int, label: int | None = None) -> tuple[Tensor, Tensor]:
        """The surest boxes of different objects, (m, 4), and their classes, (m,); m is at most `count`.

        A box that shares more than half of its union with a surer one is another view of the same object.
        """
        if label is not None:
            boxes, scores = self.of_class(label)
            labels = torch.full((len(boxes),), label)
        elif self.labels is None:
            boxes, (scores, labels) = self.boxes, self.scores.max(1)
        else:
            boxes, scores, labels = self.boxes, self.scores, self.labels
        chosen: list[int] = []
        free = (boxes[:, :2] < boxes[:, 2:]).all(1)
        while len(chosen) < count and bool(free.any()):
            best = int(torch.where(free, scores, -torch.inf).argmax())
            chosen.append(best)
            free = free & (overlap(boxes, boxes[best]) <= _APART)
            free[best] = False
        return boxes[chosen], labels[chosen].long()


def found_boxes(output: Any, rows: int, read: Read | None = None) -> list[FoundBoxes]:
    """What a detector's raw output says of each of so many rows.

    Raises:
        TypeError: it is none of the known forms, or `read` did not make one of it.
        ValueError: it is one by its shape, with numbers that do not fit.
    """
    if read is not None:
        output = read(output)
    parts = named_parts(output) if not isinstance(output, list | tuple) or hasattr(output, "_fields") else {}
    if isinstance(output, list | tuple) and output and all(isinstance(one, Mapping) for one in output):
        found = [_of_dict(one) for one in output]
    elif type(output).__name__.endswith(("DetectionOutput", "SegmentationOutput")) and "pred_boxes" in parts:
        found = list(_of_queries(parts["logits"], parts["pred_boxes"], type(output).__name__.startswith(_SOFTMAX)))
    else:
        first = output[0] if isinstance(output, list | tuple) and output else output
        if not isinstance(first, Tensor) or first.ndim != 3 or not first.is_floating_point() or first.shape[1] < 5:
            raise TypeError(_no_detector(output, rows, read is not None))
        found = list(_of_anchors(first))
    if len(found) != rows:
        raise TypeError(_no_detector(output, rows, read is not None))
    return found


def overlap(boxes: Tensor, box: Tensor) -> Tensor:
    """Intersection over union (n,) of `boxes` (n, 4) with one `box` (4,)."""
    sides = torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])
    common = sides.clamp_min(0).prod(1)
    return common / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - common)


def _of_dict(found: Mapping[str, Tensor]) -> FoundBoxes:
    missing = {"boxes", "scores"} - found.keys()
    if missing or (found["scores"].ndim == 1 and "labels" not in found):
        raise TypeError(
            f"`target` detection needs `boxes`, and `labels` with `scores`, or `scores` of all classes; the detector's "
            f"dict holds {sorted(found)}"
        )
    return FoundBoxes(found["boxes"], found["scores"], found["labels"] if found["scores"].ndim == 1 else None)


def _of_anchors(found: Tensor) -> Iterator[FoundBoxes]:
    """(rows, 4 + K, n): centres and sizes in pixels, and the probability of each class."""
    scores = found[:, 4:].transpose(1, 2)
    low, high = (float(bound) for bound in torch.aminmax(scores.detach())) if scores.numel() else (0.0, 0.0)
    if low < 0 or high > 1:
        raise ValueError(
            f"`target` detection takes {tuple(found.shape)} for boxes (rows, 4 + classes, n), and what would be class "
            f"probabilities reaches from {low:.3g} to {high:.3g}; give `read`, a function from what the model returns "
            f"to {_FITS}"
        )
    return (FoundBoxes(*one, None) for one in zip(_corners(found[:, :4].transpose(1, 2)), scores, strict=True))


def _of_queries(logits: Tensor, boxes: Tensor, softmax: bool) -> Iterator[FoundBoxes]:
    """(rows, n, K), with "no object" as the last class under a softmax, and (rows, n, 4) as shares of the image."""
    scores = logits.softmax(2)[..., :-1] if softmax else logits.sigmoid()
    return (FoundBoxes(*one, None) for one in zip(_corners(boxes), scores, strict=True))


def _corners(boxes: Tensor) -> Tensor:
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def _no_detector(output: Any, rows: int, read: bool) -> str:
    shape = f" {tuple(output.shape)}" if isinstance(output, Tensor) else ""
    came = f"{type(output).__name__}{shape}{f' of {len(output)}' if isinstance(output, list | tuple) else ''}"
    return (
        f"`target` detection needs a detector's output for each of {rows} rows: {_FITS}; {'`read`' if read else ''}"
        f"{' ' if read else 'the model '}returned {came}{'' if read else '. Give `read` to make one of these of it'}"
    )
