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
_SIDE = 224  # pixels of a tile at most
_PAPER = (128, 128, 128)


@dataclass(frozen=True)
class Gallery:
    """Tiles on two sheets.

    Attributes:
        number: names its files.
        positions: of the images in the order of the tiles; those that could not be read are left out.
    """

    number: int
    positions: tuple[int, ...]


def write_gallery(
    run: AuditRun, photographs: Photographs, method: str, positions: Sequence[int], number: int, folder: Path
) -> Gallery | None:
    """Writes the sheets of the first images; None where none can be read.

    Args:
        run: whose maps.
        photographs: of the run.
        method: its label.
        positions: of images; the first `TILES` of those that can be read are drawn.
        number: names the files `NUMBER-photos.jpg` and `NUMBER-maps.jpg`.
        folder: for them.
    """
    wanted = list(dict.fromkeys(int(position) for position in positions))[:TILES]
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
    save_jpeg(_sheet([views[position] for position in shown], side), folder / f"{number}-photos.jpg")
    save_jpeg(_sheet([drawn[position] for position in shown], side), folder / f"{number}-maps.jpg")
    return Gallery(number, tuple(shown))


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
