"""What stands for "nothing there": a baseline in normal form, a tensor that broadcasts against the inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xai_fast.core.plain import plain

from .blur import blurred
from .preprocess import Preprocess
from .segments import SegmentMap

Baseline = float | Sequence[float] | Tensor | str
NAMES = ("image_mean", "blur", "black", "white")
SEGMENT_MEAN = "segment_mean"  # where there are segments
BLUR_SHARE = 0.05  # the Gaussian's sigma as a share of the short side


def check_baseline(baseline: Baseline, *, segmented: bool = False) -> None:
    """Refuses what can be refused before the inputs are known; `segmented`: whether there will be segments."""
    names = (*NAMES, SEGMENT_MEAN) if segmented else NAMES
    problem = f"`baseline` came as {baseline!r}; give a number, one per channel, a tensor, or one of {names}"
    if isinstance(baseline, str):
        if baseline not in names:
            raise ValueError(problem)
        return
    try:
        torch.as_tensor(baseline, device=baseline.device if isinstance(baseline, Tensor) else "cpu")
    except (RuntimeError, TypeError, ValueError):
        raise TypeError(problem) from None
    if isinstance(baseline, Tensor):
        plain("baseline", baseline)


def resolve_baseline(
    baseline: Baseline, inputs: Tensor, preprocess: object, segments: SegmentMap | None = None
) -> Tensor:
    """The baseline as a tensor that broadcasts to `inputs` (N, C, *S), of their dtype and device.

    Args:
        baseline: a number or one per channel in the model's space, a tensor, or a name: "image_mean" (each image's mean
            per channel), "blur" (Gaussian, sigma 5 % of the short side), "black", "white", "segment_mean".
        inputs: (N, C, *S).
        preprocess: needed by "black" and "white", which are colours of a photograph.
        segments: needed by "segment_mean", each segment's own mean per channel.

    Raises:
        ValueError: an unknown name, a shape that does not broadcast, or a colour without preprocessing.
    """
    if isinstance(baseline, str) and baseline == SEGMENT_MEAN:
        if segments is None:
            raise ValueError(
                '`baseline` "segment_mean" needs a label map, and `segments` are masks; give another baseline'
            )
        return _segment_means(inputs, segments)
    if isinstance(baseline, str):
        return _named(baseline, inputs, preprocess)
    baseline = plain("baseline", baseline) if isinstance(baseline, Tensor) else baseline
    value = torch.as_tensor(baseline, dtype=inputs.dtype, device=inputs.device)
    channels = inputs.shape[1]
    if value.ndim == 1:
        value = value.view(1, -1, *[1] * (inputs.ndim - 2))
    fits = f"a number, {channels} numbers, or a tensor that broadcasts to {tuple(inputs.shape)}"
    try:
        broadcast = torch.broadcast_shapes(value.shape, inputs.shape)
    except RuntimeError:
        broadcast = None
    if broadcast != inputs.shape or not value.isfinite().all():
        raise ValueError(
            f"`baseline` of shape {tuple(torch.as_tensor(baseline).shape)} does not fit; give {fits}, all finite"
        )
    return value


def _named(name: str, inputs: Tensor, preprocess: object) -> Tensor:
    check_baseline(name)
    space = tuple(range(2, inputs.ndim))
    if name == "image_mean":
        return inputs.mean(space, keepdim=True)
    if name == "blur":
        return blurred(inputs, BLUR_SHARE * min(inputs.shape[2:]))
    if not isinstance(preprocess, Preprocess):
        raise ValueError(
            f"`baseline` {name!r} is a colour of the photograph, and how a photograph becomes an input is not known; "
            "pass the engine `preprocess`, or give `baseline` in the model's space"
        )
    colour = preprocess.value_of(0.0 if name == "black" else 1.0)
    return colour.to(inputs).view(1, -1, *[1] * (inputs.ndim - 2))


def _segment_means(inputs: Tensor, segments: SegmentMap) -> Tensor:
    """Each position takes the mean of its segment per channel, and keeps its own value where it has none."""
    labels = segments.labels.to(inputs.device).flatten(1)[:, None].expand(-1, inputs.shape[1], -1)
    flat = inputs.flatten(2).double()
    index, none = labels.clamp_min(0), labels < 0
    most = max(int(segments.counts.max()), 1)
    total = flat.new_zeros(*flat.shape[:2], most).scatter_add_(2, index, flat.masked_fill(none, 0))
    count = flat.new_zeros(*flat.shape[:2], most).scatter_add_(2, index, (~none).double())
    means = (total / count.clamp_min(1)).gather(2, index)
    return torch.where(none, flat, means).view(inputs.shape).to(inputs.dtype)
