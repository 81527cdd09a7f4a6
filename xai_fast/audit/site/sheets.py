"""Sheets of pictures: a gallery is two files, photographs and maps, whose tiles the page cuts out by its style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xai_fast.audit.photographs import Photographs
from xai_fast.audit.reading import AuditRun
from xai_fast.report import overlay, save_jpeg

COLUMNS, ROWS = 6, 4
TILES = COLUMNS * ROWS
GROUP_TILES = 2 * COLUMNS
"""Tiles of a group: less than of a finding, because there are more of them."""
_SIDE = 224  # pixels of a tile at most
_PAPER = (128, 128, 128)


@dataclass(frozen=True)
class Gallery:
    """Tiles on two sheets.

    Attributes:
        number: names its files.
        positions: of the images in the order of the tiles; those that could not be read are left out.
        mean: whether a tile before them shows what they have in common.
    """

    number: int
    positions: tuple[int, ...]
    mean: bool = False


def write_gallery(
    run: AuditRun,
    photographs: Photographs,
    method: str,
    positions: Sequence[int],
    number: int,
    folder: Path,
    mean: NDArray[np.floating] | None = None,
) -> Gallery | None:
    """Writes the sheets of the first images; None where none can be read.

    Args:
        run: whose maps.
        photographs: of the run.
        method: its label.
        positions: of images; the first `TILES` of those that can be read are drawn.
        number: names the files `NUMBER-photos.jpg` and `NUMBER-maps.jpg`.
        folder: for them.
        mean: (h, w) a map of them all, which comes first, over the mean of the photographs that are shown.
    """
    room = TILES if mean is None else GROUP_TILES - 1
    wanted = list(dict.fromkeys(int(position) for position in positions))[:room]
    pictures = photographs.pictures(wanted)
    shown = [position for position in wanted if position in pictures]
    if not shown:
        return None
    maps = maps_at(run, method, shown)
    signed = {one["label"]: one["signed"] for one in run.plan.fixed["attribution"]["methods"]}[method]
    views = {position: Image.fromarray(pictures[position]) for position in shown}
    side = min(_SIDE, max(max(view.size) for view in views.values()))
    drawn = {
        position: overlay(view, maps[position], signed=signed) if position in maps else view
        for position, view in views.items()
    }
    photos, overlays = ([pictures[position] for position in shown] for pictures in (views, drawn))
    if mean is not None:
        photos.insert(0, _mean_of(photos))
        overlays.insert(0, overlay(photos[0], mean.astype(np.float32), signed=False))
    save_jpeg(_sheet(photos, side), folder / f"{number}-photos.jpg")
    save_jpeg(_sheet(overlays, side), folder / f"{number}-maps.jpg")
    return Gallery(number, tuple(shown), mean is not None)


def _mean_of(pictures: Sequence[Image.Image]) -> Image.Image:
    """What pictures have in common, at the size of the first."""
    size = pictures[0].size
    alike = [one if one.size == size else one.resize(size, Image.Resampling.BILINEAR) for one in pictures]
    mean = np.mean([np.asarray(one.convert("RGB"), np.float32) for one in alike], axis=0)
    return Image.fromarray(mean.round().astype(np.uint8))


def maps_at(run: AuditRun, method: str, positions: Sequence[int]) -> dict[int, NDArray[np.float32]]:
    """Maps (h, w) of images by their places; those that have one."""
    names = [f"{method}.{name}" for name in ("heatmap", "height", "width", "scale", "zero")]
    size = int(run.plan.fixed["shard_size"])
    by_shard: dict[int, list[int]] = {}
    for position in positions:
        by_shard.setdefault(position // size, []).append(position)
    found = {}
    for index, members in by_shard.items():
        table = run.shards.read(index, names).take([position - index * size for position in members])
        for position, row in zip(members, table.to_pylist(), strict=True):
            content, height, width, scale, zero = (row[name] for name in names)
            if content is not None:
                levels = np.frombuffer(content, np.uint8).reshape(height, width)
                found[position] = levels * np.float32(scale) + np.float32(zero)
    return found


def _sheet(pictures: Sequence[Image.Image], side: int) -> Image.Image:
    """Pictures in square tiles, row by row, on grey."""
    sheet = Image.new("RGB", (COLUMNS * side, ROWS * side), _PAPER)
    for place, picture in enumerate(pictures):
        scale = side / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        tile = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        left, top = place % COLUMNS * side, place // COLUMNS * side
        sheet.paste(tile, (left + (side - size[0]) // 2, top + (side - size[1]) // 2))
    return sheet
