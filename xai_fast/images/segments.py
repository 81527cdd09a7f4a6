"""Segments of inputs: superpixels, cells, groups from an annotation or an instance-segmentation model, in one form.

A label map is a LongTensor (*S,) for every input or (N, *S), in any integers, gaps included; below 0 there is no
segment. Groups that overlap are BoolTensors (K, *S) or (N, K, *S).
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xai_fast.core.plain import plain

from .pictures import pixels

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["annotation", "instances", "superpixels"]

Segments = str | Tensor | np.ndarray | Callable[[np.ndarray], Any]
CELLS = 8  # along each axis, of "grid"
# scikit-image's algorithms under the settings that lime gives quickshift, that papers on LIME give SLIC, and its own.
ALGORITHMS: dict[str, dict[str, Any]] = {
    "quickshift": {"kernel_size": 4, "max_dist": 200, "ratio": 0.2, "rng": 0},
    "slic": {"n_segments": 100, "compactness": 1, "sigma": 1, "start_label": 0},
    "felzenszwalb": {"scale": 100, "sigma": 0.5, "min_size": 50},
}
NAMES = ("grid", *ALGORITHMS)
_MOST_KEPT = 64  # label maps; those of 224 x 224 positions take 13 MB together
_KEPT: OrderedDict[bytes, np.ndarray] = OrderedDict()
_LOCK = threading.Lock()
if hasattr(
    os, "register_at_fork"
):  # another thread may hold it when the process is forked, and is not there afterwards
    os.register_at_fork(after_in_child=lambda: globals().update(_LOCK=threading.Lock()))


@dataclass(frozen=True)
class SegmentMap:
    """Which segment each position of each input belongs to.

    Attributes:
        labels: LongTensor (N, *S) on the CPU, from 0 on without gaps; -1 where there is no segment.
        counts: LongTensor (N,) segments of each input.
    """

    labels: Tensor
    counts: Tensor

    def labels_on(self, device: torch.device) -> Tensor:
        """The labels on a device, where one map for every input stays one."""
        one = self.labels[:1] if self.labels.stride(0) == 0 else self.labels
        return one.to(device).expand(self.labels.shape)

    @classmethod
    def of(cls, labels: Tensor) -> SegmentMap:
        """Label maps (N, *S) of any integers, numbered anew in ascending order; below 0 there is no segment."""
        if len(labels) > 1 and labels.stride(0) == 0:  # one map for every input
            one = cls.of(labels[:1])
            return cls(one.labels.expand(labels.shape), one.counts.expand(len(labels)))
        found, counts = torch.empty(labels.shape, dtype=torch.long), []
        for row, map_ in zip(found, labels, strict=True):
            ids, inverse = map_.unique(return_inverse=True)
            none = int((ids < 0).sum())
            row.copy_((inverse - none).clamp_min(-1))
            counts.append(len(ids) - none)
        return cls(found, torch.tensor(counts, dtype=torch.long))


def superpixels(images: Tensor, algorithm: str = "slic", *, preprocess: Any = None, **settings: Any) -> Tensor:
    """Label maps (N, H, W) of pictures by scikit-image, or by a grid of 8 x 8 cells.

    Maps of the latest 64 pictures are kept, so that the next method to explain one does not wait for them again. A
    generator among the settings is named by its seed, an integer, or the maps are those of its first use.

    Args:
        images: (N, C, H, W), as a model sees them.
        algorithm: "quickshift", "slic", "felzenszwalb" or "grid".
        preprocess: by which the pictures were made; None scales each by its own range.
        settings: of scikit-image's function, beside or in place of ours (quickshift: kernel size 4, distance 200,
            ratio 0.2; SLIC: 100 segments, compactness 1, sigma 1; Felzenszwalb: scale 100, sigma 0.5, size 50).

    Raises:
        ValueError: an unknown algorithm, or inputs that are no pictures.
    """
    _check_name(algorithm)
    if algorithm == "grid":
        return _grid(tuple(images.shape[2:])).expand(len(images), *images.shape[2:])
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"`segments` {algorithm!r} needs pictures (N, 1 or 3, H, W), and the inputs are {tuple(images.shape)}; "
            'give a label map, or "grid"'
        )
    shown = pixels(images.detach().float().cpu(), preprocess).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).double().numpy()
    chosen = {**ALGORITHMS[algorithm], **settings}
    return torch.from_numpy(np.stack([_segmented(picture, algorithm, chosen) for picture in shown])).long()


def _segmented(picture: np.ndarray, algorithm: str, settings: dict[str, Any]) -> np.ndarray:
    """The label map of a picture (H, W, 3); the latest ones are kept, since many methods explain the same picture."""
    from skimage import segmentation

    asked = repr((algorithm, sorted(settings.items()), picture.shape)).encode()
    key = hashlib.sha256(asked + np.ascontiguousarray(picture).tobytes()).digest()
    with _LOCK:
        found = _KEPT.pop(key, None)
    if found is None:
        found = np.asarray(getattr(segmentation, algorithm)(picture, **settings)).astype(np.int32)
    with _LOCK:
        _KEPT[key] = found
        while len(_KEPT) > _MOST_KEPT:
            _KEPT.popitem(last=False)
    return found


def annotation(picture: Image.Image | np.ndarray, size: Sequence[int] | None = None) -> Tensor:
    """A label map (H, W) of an annotation picture: every colour, or every value of a grey or palette one, is a group.

    Args:
        picture: a PIL image, or an array (H, W) or (H, W, C) of integers.
        size: (H, W) to which it is resized, each position taking its nearest pixel; None leaves it.

    Raises:
        ValueError: an array that is no such picture.
    """
    values = np.asarray(picture)
    if values.ndim not in (2, 3) or values.size == 0 or values.dtype.kind not in "uib":
        raise ValueError(
            f"`picture` is an array {values.shape} of {values.dtype}; give an annotation of integers (H, W[, C])"
        )
    if size is not None:
        rows, columns = (
            ((np.arange(wanted) + 0.5) * extent / wanted).astype(int)
            for wanted, extent in zip(size, values.shape, strict=False)
        )
        values = values[rows][:, columns]
    flat = values.reshape(values.shape[0] * values.shape[1], -1)
    _, groups = np.unique(flat, axis=0, return_inverse=True)
    return torch.from_numpy(np.asarray(groups).reshape(values.shape[:2])).long()


@torch.no_grad()
def instances(
    model: Callable[[list[Tensor]], list[dict[str, Tensor]]], images: Tensor, *, threshold: float = 0.5
) -> Tensor:
    """Masks of the objects that a torchvision instance-segmentation model finds: BoolTensor (N, K, H, W).

    Args:
        model: in eval mode; takes a list of pictures (3, H, W) in [0, 1] and returns a dict per picture with "scores"
            (D,) and "masks" (D, 1, H, W).
        images: (N, 3, H, W) in [0, 1].
        threshold: of scores, and of the masks' probabilities.

    Pictures with fewer objects than others get empty masks, about which nobody asks the model.
    """
    found = [one["masks"][one["scores"] >= threshold, 0] >= threshold for one in model([*images])]
    most = max((len(masks) for masks in found), default=0)
    padded = torch.zeros(len(images), most, *images.shape[2:], dtype=torch.bool)
    for row, masks in zip(padded, found, strict=True):
        row[: len(masks)] = masks.cpu()
    return padded


def check_segments(segments: Segments, *, overlapping: bool = True) -> Segments:
    """Refuses what can be refused before the inputs are known; returns arrays as tensors.

    `overlapping`: whether masks will do, and not only label maps.

    Raises:
        TypeError, ValueError: neither a name, nor a map or masks, nor a function.
    """
    if isinstance(segments, str):
        _check_name(segments)
        return segments
    if isinstance(segments, np.ndarray):
        segments = torch.from_numpy(segments)
    if isinstance(segments, Tensor):
        segments = plain("segments", segments)
        if segments.is_floating_point() or segments.is_complex():
            masks = ", or boolean masks" if overlapping else ""
            raise TypeError(f"`segments` came as {segments.dtype}; give a label map of integers{masks}")
        if segments.dtype is torch.bool and not overlapping:
            raise TypeError(
                "`segments` are masks, which may overlap; segments hidden together need a label map of integers"
            )
        return segments
    if not callable(segments):
        raise TypeError(
            f"`segments` came as {type(segments).__name__}; give a label map, boolean masks, one of {NAMES}, or a "
            "function from a picture (H, W, C) to a label map"
        )
    return segments


def most_segments(segments: Segments, shape: Sequence[int]) -> int:
    """How many segments an input (C, *S) has at most."""
    if isinstance(segments, Tensor):
        if segments.dtype is torch.bool:
            return segments.shape[-len(shape)] if segments.ndim >= len(shape) else 1
        maps = segments if segments.ndim == len(shape) else segments[None]
        return int(SegmentMap.of(maps).counts.max()) if maps.numel() else 0
    if segments == "grid":
        return math.prod(min(CELLS, extent) for extent in shape[1:])
    return math.prod(shape[1:])


def resolve_segments(segments: Segments, inputs: Tensor, preprocess: Any) -> SegmentMap | Tensor:
    """The segments of inputs (N, C, *S): a map, or boolean masks (1, K, *S) or (N, K, *S).

    Raises:
        ValueError: a shape that does not fit the inputs.
    """
    if isinstance(segments, str):
        return SegmentMap.of(superpixels(inputs, segments, preprocess=preprocess))
    space, several = tuple(inputs.shape[2:]), len(inputs)
    if not isinstance(segments, Tensor):
        assert callable(segments)
        shown = pixels(inputs.detach().float().cpu(), preprocess).movedim(1, -1).numpy()
        maps = [torch.as_tensor(np.asarray(segments(picture))) for picture in shown]
        wrong = next((map_ for map_ in maps if tuple(map_.shape) != space or map_.is_floating_point()), None)
        if wrong is not None:
            raise ValueError(
                f"the function in `segments` returned {tuple(wrong.shape)} of {wrong.dtype}; it must return a label "
                f"map {space} of integers"
            )
        return SegmentMap.of(torch.stack([map_.long() for map_ in maps]))
    masked = segments.dtype is torch.bool
    single = len(space) + masked  # axes where every input has the same
    one_each = segments.ndim == single + 1 and len(segments) == several
    if masked and segments.ndim == len(space):
        segments = segments[None]
    if tuple(segments.shape[segments.ndim - len(space) :]) != space or not (segments.ndim == single or one_each):
        kind, more = ("boolean masks", "K, ") if masked else ("a label map", "")
        extents = more + ", ".join(map(str, space))
        raise ValueError(
            f"`segments` has shape {tuple(segments.shape)}; {kind} for these inputs must be ({extents}) or "
            f"({several}, {extents})"
        )
    if masked:
        return segments if one_each else segments[None]
    return SegmentMap.of(segments.long().cpu().expand(several, *space))


def label_map(segments: Segments, inputs: Tensor, preprocess: Any) -> SegmentMap:
    """The segments of inputs (N, C, *S), where masks were refused."""
    resolved = resolve_segments(segments, inputs, preprocess)
    assert isinstance(resolved, SegmentMap)
    return resolved


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise ValueError(f"`segments` came as {name!r}; the names are {', '.join(NAMES)}, or give a label map")


def _grid(space: tuple[int, ...]) -> Tensor:
    """Cells of equal size, at most `CELLS` along an axis."""
    labels = torch.zeros((), dtype=torch.long)
    for extent in space:
        cells = min(CELLS, extent)
        labels = labels[..., None] * cells + torch.arange(extent) * cells // max(extent, 1)
    return labels
