"""Cues that can be taken out of a picture and put into another: a region's content, a shift of its colours, a trace."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .regions import Box

Picture = NDArray[np.uint8]
"""(h, w, 3)."""


class AbstractCue(ABC):
    """Something that a picture has or has not. Pictures that come are never changed."""

    @abstractmethod
    def inserted(self, picture: Picture, donor: Picture) -> Picture:
        """The picture with the donor's cue."""

    @abstractmethod
    def inserted_instead(self, picture: Picture, donor: Picture) -> Picture:
        """The control: changed as much, by something of the donor that is not the cue."""

    @abstractmethod
    def removed(self, picture: Picture) -> Picture:
        """The picture without it."""

    @abstractmethod
    def removed_instead(self, picture: Picture) -> Picture:
        """The control: changed as much, elsewhere or otherwise."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """As JSON, with a key `kind`."""


@dataclass(frozen=True)
class RegionCue(AbstractCue):
    """What is in a region. It is removed by writing the opposite side of the same picture over it, mirrored.

    So what fills the place is natural, and of the same photograph. The control of inserting takes the donor's opposite
    side in place of the cue; that of removing does the same to the region on the far side.
    """

    box: Box

    @property
    def has_control(self) -> bool:
        """Whether something as large lies across; what holds the middle of a picture is what the picture shows."""
        return not self.box.flipped().mirrored().meets(self.box)

    def inserted(self, picture: Picture, donor: Picture) -> Picture:
        """See `AbstractCue`."""
        return _put(picture, _cut(donor, self.box, picture, self.box), self.box)

    def inserted_instead(self, picture: Picture, donor: Picture) -> Picture:
        """See `AbstractCue`."""
        return _put(picture, _opposite(donor, self.box, picture), self.box)

    def removed(self, picture: Picture) -> Picture:
        """See `AbstractCue`."""
        return _put(picture, _opposite(picture, self.box, picture), self.box)

    def removed_instead(self, picture: Picture) -> Picture:
        """See `AbstractCue`."""
        across = self.box.flipped().mirrored()
        if across.meets(self.box):  # the region is in the middle, and nothing is left that is as large
            return picture.copy()
        beside = across.mirrored()
        if beside.meets(self.box) or beside.meets(across):  # never a copy of the cue
            return _put(picture, _mean_of(picture, across, picture), across)
        return _put(picture, _cut(picture, beside, picture, across)[:, ::-1], across)

    def described(self) -> dict[str, Any]:
        """See `AbstractCue`."""
        return {"kind": "region", "box": list(self.box)}


@dataclass(frozen=True)
class CornersCue(AbstractCue):
    """What is in any of the four corners, which differs from picture to picture.

    All four are exchanged at once. They are removed by writing over them the mirror image of what lies beside them;
    controls do the same between the corners, or put there what the donor has between its own.
    """

    side: float

    def inserted(self, picture: Picture, donor: Picture) -> Picture:
        """See `AbstractCue`."""
        for box in self.corners:
            picture = _put(picture, _cut(donor, box, picture, box), box)
        return picture

    def inserted_instead(self, picture: Picture, donor: Picture) -> Picture:
        """See `AbstractCue`."""
        for box, between in zip(self.corners, self._between, strict=True):
            picture = _put(picture, _cut(donor, between, picture, box), box)
        return picture

    def removed(self, picture: Picture) -> Picture:
        """See `AbstractCue`."""
        return _without(picture, self.corners)

    def removed_instead(self, picture: Picture) -> Picture:
        """See `AbstractCue`."""
        return _without(picture, self._between)

    def removed_singly(self, picture: Picture) -> list[Picture]:
        """The picture without one corner, for each of them."""
        return [_without(picture, (box,)) for box in self.corners]

    def removed_instead_singly(self, picture: Picture) -> list[Picture]:
        """The controls."""
        return [_without(picture, (box,)) for box in self._between]

    def described(self) -> dict[str, Any]:
        """See `AbstractCue`."""
        return {"kind": "corners", "side": self.side}

    @property
    def corners(self) -> tuple[Box, ...]:
        """Top left, top right, bottom left, bottom right."""
        near, far = (0.0, self.side), (1 - self.side, 1.0)
        return tuple(Box(rows[0], columns[0], rows[1], columns[1]) for rows in (near, far) for columns in (near, far))

    @property
    def _between(self) -> tuple[Box, ...]:
        """As large, at the middle of each side."""
        near, middle, far = (0.0, self.side), (0.5 - self.side / 2, 0.5 + self.side / 2), (1 - self.side, 1.0)
        places = ((near, middle), (middle, far), (middle, near), (far, middle))
        return tuple(Box(rows[0], columns[0], rows[1], columns[1]) for rows, columns in places)


@dataclass(frozen=True)
class ColourCue(AbstractCue):
    """A shift of the mean of each channel, in [-1, 1] of full brightness: a cast, or a brighter or darker picture.

    The control of inserting shifts the channels the other way. That of removing does nothing: whatever else is done to
    the colours of a picture that has a cast takes it further from all others than taking the cast away.
    """

    shift: tuple[float, float, float]

    def inserted(self, picture: Picture, donor: Picture) -> Picture:
        """See `AbstractCue`."""
        del donor
        return _shifted(picture, self.shift, 1)

    def inserted_instead(self, picture: Picture, donor: Picture) -> Picture:
        """See `AbstractCue`."""
        del donor
        return _shifted(picture, self.shift, -1)

    def removed(self, picture: Picture) -> Picture:
        """See `AbstractCue`."""
        return _shifted(picture, self.shift, -1)

    def removed_instead(self, picture: Picture) -> Picture:
        """See `AbstractCue`."""
        return picture.copy()

    def described(self) -> dict[str, Any]:
        """See `AbstractCue`."""
        return {"kind": "colour", "shift": list(self.shift)}


@dataclass(frozen=True)
class TraceCue(AbstractCue):
    """What is added to every picture of one origin: a pattern that is always at the same place, and a shift of colours.

    The control adds, or takes away, a pattern that was measured in the same way between groups drawn at random.

    Attributes:
        shape: (h, w) of the patterns.
        pattern: (h, w, 3) float16 in levels of 0 to 255, as bytes.
        control: likewise.
    """

    shape: tuple[int, int]
    pattern: bytes
    control: bytes

    def inserted(self, picture: Picture, donor: Picture) -> Picture:
        """See `AbstractCue`."""
        del donor
        return self._added(picture, self.pattern, 1)

    def inserted_instead(self, picture: Picture, donor: Picture) -> Picture:
        """See `AbstractCue`."""
        del donor
        return self._added(picture, self.control, 1)

    def removed(self, picture: Picture) -> Picture:
        """See `AbstractCue`."""
        return self._added(picture, self.pattern, -1)

    def removed_instead(self, picture: Picture) -> Picture:
        """See `AbstractCue`."""
        return self._added(picture, self.control, -1)

    def described(self) -> dict[str, Any]:
        """See `AbstractCue`."""
        patterns = {name: _packed(getattr(self, name)) for name in ("pattern", "control")}
        return {"kind": "trace", "shape": list(self.shape), **patterns}

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> TraceCue:
        """What `described` gave."""
        height, width = described["shape"]
        return cls((height, width), *(zlib.decompress(b64decode(described[name])) for name in ("pattern", "control")))

    def _added(self, picture: Picture, pattern: bytes, sign: int) -> Picture:
        found = np.frombuffer(pattern, np.float16).reshape(*self.shape, 3).astype(np.float32)
        return (picture.astype(np.float32) + sign * found).round().clip(0, 255).astype(np.uint8)


def cue_from(described: Mapping[str, Any] | None) -> AbstractCue | None:
    """What `described` gave."""
    if described is None:
        return None
    if described["kind"] == "region":
        return RegionCue(Box(*described["box"]))
    if described["kind"] == "corners":
        return CornersCue(described["side"])
    if described["kind"] == "trace":
        return TraceCue.from_description(described)
    return ColourCue(tuple(described["shift"]))


def _packed(content: bytes) -> str:
    return b64encode(zlib.compress(content)).decode()


def _cut(source: Picture, box: Box, like: Picture, to: Box) -> Picture:
    """What a picture has in a box, at the size that another box has in `like`."""
    from PIL import Image

    found = source[box.pixels(*source.shape[:2])]
    rows, columns = to.pixels(*like.shape[:2])
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if found.shape[:2] == (height, width):
        return found
    return np.asarray(Image.fromarray(found).resize((width, height), Image.Resampling.BILINEAR))


def _opposite(source: Picture, box: Box, like: Picture) -> Picture:
    """The mirror image of what lies across a box, at the box's size in `like`; the mean colour where nothing does."""
    if not (across := box.mirrored()).meets(box):
        return _cut(source, across, like, box)[:, ::-1]
    if not (across := box.flipped()).meets(box):
        return _cut(source, across, like, box)[::-1]
    return _mean_of(source, box, like)


def _without(picture: Picture, boxes: Iterable[Box]) -> Picture:
    """A picture with what lies beside some boxes in their place."""
    changed = picture
    for box in boxes:
        changed = _put(changed, _beside(picture, box), box)
    return changed


def _beside(picture: Picture, box: Box) -> Picture:
    """The mirror image of what lies next to a box, towards the middle of the picture."""
    height, width = box.bottom - box.top, box.right - box.left
    if box.left == 0 or box.right == 1:
        step = width if box.left == 0 else -width
        return _cut(picture, Box(box.top, box.left + step, box.bottom, box.right + step), picture, box)[:, ::-1]
    step = height if box.top == 0 else -height
    return _cut(picture, Box(box.top + step, box.left, box.bottom + step, box.right), picture, box)[::-1]


def _mean_of(source: Picture, box: Box, like: Picture) -> Picture:
    """The mean colour of a picture, at a box's size in `like`."""
    rows, columns = box.pixels(*like.shape[:2])
    mean = source.reshape(-1, 3).mean(0).round().astype(np.uint8)
    return np.broadcast_to(mean, (rows.stop - rows.start, columns.stop - columns.start, 3))


def _put(picture: Picture, content: Picture, box: Box) -> Picture:
    changed = picture.copy()
    changed[box.pixels(*picture.shape[:2])] = content
    return changed


def _shifted(picture: Picture, shift: tuple[float, float, float], sign: int) -> Picture:
    moved = picture.astype(np.float32) + np.float32(255 * sign) * np.asarray(shift, np.float32)
    return moved.round().clip(0, 255).astype(np.uint8)
