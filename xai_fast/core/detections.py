"""The target of detectors: is this object still found? One object or several per input, given or the detector's own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .found_boxes import FoundBoxes, Read, found_boxes, overlap
from .output_targets import OutputTarget, floating, in_short
from .scores import Classes, class_indices, entries, entries_at

# Of a side: where a box's edge is that near to the one that it is compared with, the overlap is at the top of a kink.
_NEAR = 1e-3
_UNSETTLED = -1
_SHARE = 2.0  # boxes without a corner beyond are shares of the image


@dataclass(frozen=True, eq=False, repr=False)
class Detection(OutputTarget):
    """A callable target that knows its boxes; what `detection` returns.

    Attributes:
        several: whether each input has several boxes, so that results carry an axis K.
        own: how many boxes are the detector's own best ones, settled on the clean inputs; 0 where they are given.
        read: the caller's function from a raw output to one of the forms that are known.
    """

    several: bool = False
    own: int = 0
    read: Read | None = None

    @property
    def width(self) -> int:
        """K, the boxes per input."""
        return self.own or (self.given["boxes"].shape[1] if self.several else 1)

    def opened(self, n_samples: int) -> Detection:
        """The same with a place for each of N inputs' own boxes, which `settle` fills."""
        if not self.own:
            return self
        places = (n_samples, self.own) if self.several else (n_samples,)
        given = {"boxes": torch.full((*places, 4), torch.nan), "labels": torch.full(places, _UNSETTLED)}
        return dataclasses.replace(self, given=given | {"of": self.given.get("labels", torch.tensor([_UNSETTLED]))})

    def settle(self, output: Any, sample: Tensor) -> None:
        """Takes the detector's own best boxes in the clean inputs `sample` (rows,).

        Raises:
            ValueError: it found fewer than were asked for.
        """
        boxes, labels = self.given["boxes"], self.given["labels"]
        of = entries_at("labels", self.given["of"], sample.cpu()).tolist()
        for one, n, wanted in zip(found_boxes(output, len(sample), self.read), sample.tolist(), of, strict=True):
            best, classes = one.surest(self.own, None if wanted == _UNSETTLED else wanted)
            if len(best) < self.own:
                of_class = "" if wanted == _UNSETTLED else f" of class {wanted}"
                raise ValueError(
                    f"`target` detection asks for {self.own} of the detector's own boxes{of_class}, and it found "
                    f"{len(best)} in input {n}; ask for fewer, lower the detector's threshold, or give `boxes`"
                )
            boxes[n] = (best if self.several else best[0]).to(boxes)
            labels[n] = (classes if self.several else classes[0]).to(labels)

    def settled(self) -> Detection:
        """The same about the boxes that were found, as if these had been given."""
        return dataclasses.replace(self, given={name: self.given[name] for name in ("boxes", "labels")}, own=0)

    def matches(self, output: Any, sample: Tensor) -> Tensor:
        """How well each box is found in each row, (rows, K)."""
        boxes = self._of("boxes", sample).reshape(len(sample), -1, 4)
        labels = self._of("labels", sample).reshape(len(sample), -1).tolist()
        rows = zip(found_boxes(output, len(sample), self.read), boxes, labels, strict=True)
        return torch.stack(
            [
                torch.stack([self.formula(one, *box) for box in zip(its, classes, strict=True)])
                for one, its, classes in rows
            ]
        )

    def all_found(self, output: Any, rows: int) -> Tensor:
        """Every number that a detector's raw output says of so many rows, flat."""
        found = found_boxes(output, rows, self.read)
        return torch.cat([part.flatten() for one in found for part in (one.boxes, one.scores)])

    def boxes(self, n_samples: int) -> Tensor:
        """(N, 4) or (N, K, 4), in the detector's units, once they are settled."""
        return self._of("boxes", torch.arange(n_samples)).clone()

    def labels(self, n_samples: int) -> Tensor:
        """(N,) or (N, K), once they are settled."""
        return self._of("labels", torch.arange(n_samples)).clone()

    def shares(self, inputs: Tensor) -> Tensor:
        """The boxes of N inputs (N, C, H, W) as shares of their width and height.

        Detectors give pixels, or shares already: no box of pixels is one or two of them in the corner.
        """
        boxes, (height, width) = self.boxes(len(inputs)), inputs.shape[-2:]
        return boxes if float(boxes.abs().max()) <= _SHARE else boxes / boxes.new_tensor([width, height, width, height])

    def _of(self, name: str, sample: Tensor) -> Tensor:
        return entries_at(name, self.given[name], sample)

    def __call__(self, output: Any, sample: Tensor) -> Tensor:
        """(rows,) of a raw output; (rows, K) of several boxes."""
        if self.own and "of" not in self.given:
            raise ValueError("`boxes` of detection must be given when it is called directly")
        found = self.matches(output, sample)
        return found if self.several else found[:, 0]

    def __repr__(self) -> str:
        """Short, because it is what a picture of the explanation is labelled with."""
        if self.own and "of" not in self.given:
            return f"detection(the detector's own{f' {self.own}' if self.several else ''})"
        return f"detection(boxes={in_short(self.given['boxes'])}, labels={in_short(self.given['labels'])})"


def detection(
    boxes: Tensor | None = None,
    labels: Classes = None,
    *,
    n_boxes: int | None = None,
    read: Read | None = None,
) -> Detection:
    """How surely a detector still finds an object: the largest IoU times class probability of its boxes, in [0, 1].

    The similarity by which D-RISE weights its masks (Petsiuk et al. 2021, arXiv:2006.03204), with the object certain
    of its class. Detectors return one of

    - a dict per row, as torchvision's do: `boxes` (n, 4), and either `labels` (n,) with their `scores` (n,), or
      `scores` (n, K) for all classes;
    - one tensor (rows, 4 + K, n), alone or first in a tuple, as YOLO's heads do: centres, sizes and K probabilities;
    - Hugging Face's record of a DETR or of one of its relatives: `logits`, with "no object" as the last class where
      the model has a softmax, and `pred_boxes`, centres and sizes as shares of the image.

    Where no box of that class overlaps, the value is 0. A detector that drops unsure boxes (torchvision: below
    `box_score_thresh` or `score_thresh`) makes that happen sooner.

    Gradients go through the class's probability and through the corners of the box. An edge that lies where the
    object's does, to a thousandth of a side, passes none: there the overlap is at its largest, at a kink, and rounding
    would draw the sign.

    Args:
        boxes: x1, y1, x2, y2 in the units of the detector's own boxes: (4,); (N, 4) for one per input; or (N, K, 4) for
            K per input, each of which gets a map of its own, on an axis K as K classes do. None: the detector's own
            surest ones in the clean inputs, without those that share more than half of their union with a surer one.
        labels: the objects' classes, as the detector counts (torchvision: 0 is the background): an int, (N,), or (N, K)
            beside (N, K, 4) boxes. None where the boxes are the detector's own: any; else those of this class.
        n_boxes: K, how many of its own boxes each input gets; None is one, without an axis K.
        read: from what the model returns to one of the forms above, where it returns another.
    """
    if read is not None and not callable(read):
        raise TypeError(f"`read` came as {type(read).__name__}; give a function of what the model returns")
    if boxes is None:
        if n_boxes is not None and (isinstance(n_boxes, bool) or not isinstance(n_boxes, int) or n_boxes < 1):
            raise ValueError(f"`n_boxes` came as {n_boxes!r}; give how many boxes each input gets, at least 1")
        given = {} if labels is None else {"labels": entries("labels", labels)}
        return Detection("detection", given, _match, several=n_boxes is not None, own=n_boxes or 1, read=read)
    if n_boxes is not None:
        raise TypeError(f"`n_boxes` came as {n_boxes!r} beside `boxes`; it counts the detector's own, give one of them")
    given = floating("boxes", boxes, (1, 2, 3), "(4,), (N, 4) or (N, K, 4)")
    if given.shape[-1] != 4 or not (given[..., :2] < given[..., 2:]).all():
        raise ValueError(f"`boxes` came as {in_short(given)}; give x1, y1, x2, y2 with x1 < x2 and y1 < y2")
    return Detection(
        "detection", {"boxes": given, "labels": _labels(labels, given)}, _match, given.ndim == 3, read=read
    )


def _labels(labels: Classes, boxes: Tensor) -> Tensor:
    """LongTensor (1,) or (N,) beside one box per input, (1, K) or (N, K) beside several."""
    if boxes.ndim == 2:
        return entries("labels", labels)
    count, several = boxes.shape[:2]
    index = class_indices(labels, count, "labels", several=True)
    if index.ndim == 1:
        index = index[:, None].expand(count, several)
    if index.shape != (count, several):
        raise ValueError(
            f"`labels` of shape {tuple(index.shape)} do not fit `boxes` {tuple(boxes.shape)}; give one per box, "
            "or an int"
        )
    return index


def _match(found: FoundBoxes, box: Tensor, label: int) -> Tensor:
    """The largest IoU times class probability (a scalar) over the boxes that a detector found in one row."""
    boxes, scores = found.of_class(label)
    if not len(boxes):
        return boxes.sum()
    box = box.to(boxes)
    side = (box[2:] - box[:2]).repeat(2)
    there = (boxes - box).abs() <= _NEAR * side
    return (overlap(torch.where(there, boxes.detach(), boxes), box) * scores).amax()
