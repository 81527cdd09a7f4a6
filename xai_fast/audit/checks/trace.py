"""What an origin leaves in its pictures: measured from pictures of one class, some of which come from there.

Cameras are known by the mean of what a filter takes for noise (Lukas, Fridrich and Goljan 2006, "Digital camera
identification from sensor pattern noise"). So is whatever else an origin adds to all of its pictures at the same place;
a shift of colours is measured beside it. What an origin does otherwise (blur, compression, other objects) is not seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .cues import Picture, TraceCue
from .records import Records
from .subject import Subject
from .thresholds import Thresholds

_MOST = 256  # pictures of each group that are looked at
_BLUR = 2.0  # pixels: what varies more slowly is content


def trace_of(
    records: Records, subject: Subject, column: str, value: str, index: int, limits: Thresholds
) -> TraceCue | None:
    """What pictures of a class have where a column has a value and the class's others have not; None of too few.

    Only pictures that confirmations do not ask about are measured. The control is the difference of two groups as
    large, drawn from the same pictures: it is as noisy, and has no trace.
    """
    own = ~records.held_out & (records.label == index)
    has = records.groups[column] == value
    groups = [np.flatnonzero(group) for group in (own & has, own & ~has)]
    draws = np.random.default_rng(0)
    groups = [np.sort(draws.permutation(group)[:_MOST]) for group in groups]
    pictures = [_pictures(subject, records, group) for group in groups]
    if min(len(found) for found in pictures) < limits.least_images // 2:
        return None
    if len({picture.shape for found in pictures for picture in found}) > 1:
        return None
    residuals = [np.stack([_residual(picture) for picture in found]) for found in pictures]
    count, together = len(residuals[0]), np.concatenate(residuals)
    mixed = draws.permutation(len(together))
    pattern = residuals[0].mean(0) - residuals[1].mean(0)
    control = together[mixed[:count]].mean(0) - together[mixed[count:]].mean(0)
    height, width = pattern.shape[:2]
    return TraceCue((height, width), *(one.astype(np.float16).tobytes() for one in (pattern, control)))


def _residual(picture: Picture) -> NDArray[np.float32]:
    """A picture without what varies slowly, but with the mean of each channel."""
    from scipy.ndimage import gaussian_filter

    values = picture.astype(np.float32)
    return values - gaussian_filter(values, (_BLUR, _BLUR, 0)) + values.mean((0, 1))


def _pictures(subject: Subject, records: Records, rows: Sequence[int] | NDArray[np.integer]) -> list[Picture]:
    return list(subject.pictures(records.position[list(rows)].tolist()).values()) if len(rows) else []
