"""Pictures side by side: photos and maps in rows and columns, each with a title and a colour bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from PIL import Image, ImageDraw

from xai_fast.report.colours import ColourMap, default, named
from xai_fast.report.lettering import fit
from xai_fast.report.photo import as_photo
from xai_fast.report.scale import Scale

_WHITE = (255, 255, 255)
_INK, _SOFT, _LINE = (24, 24, 27), (103, 103, 112), (212, 212, 216)
# All lengths as shares of the width of a panel, so that a figure looks the same at any size.
_MARGIN, _GAP, _ROW_GAP = 0.075, 0.06, 0.09
_TITLE, _SUBTITLE, _NUMBERS = 0.062, 0.045, 0.04
# Text that does not fit shrinks to this share of its size before it is cut.
_SHRINK = 0.8
_BAR = 0.03
# Narrower than this panels become no one's pleasure: a row goes on below instead.
_NARROW = 200
# Portraits end here, in panel widths: one tall photo must not make a row of its own page.
_TALLEST = 1.3


@dataclass(frozen=True)
class Bar:
    """A colour bar.

    Attributes:
        scale: the limits that the map was drawn with.
        units: what the numbers are, such as "score per input unit"; untrusted text is fine.
        colours: the colour map or its name; None: the default for the scale.
    """

    scale: Scale
    units: str = ""
    colours: str | ColourMap | None = None

    def table(self) -> ColourMap:
        """The colour map that the bar shows."""
        if isinstance(self.colours, ColourMap):
            return self.colours
        return default(self.scale.signed) if self.colours is None else named(self.colours)


@dataclass(frozen=True)
class Panel:
    """One picture with its words.

    Attributes:
        image: the picture, any size and mode; its shape is kept.
        title: the method, or the name of the photo; shrunk, then cut to the width of the picture.
        subtitle: the class and score, say.
        bar: the colour bar below, or None.
    """

    image: Image.Image
    title: str = ""
    subtitle: str = ""
    bar: Bar | None = None


@dataclass(frozen=True)
class Row:
    """Panels from left to right, the photo first. Rows may differ in length; a None leaves its place empty."""

    panels: Sequence[Panel | None]


def figure(rows: Sequence[Row], *, width: int = 420, widest: int = 2400) -> Image.Image:
    """Lay panels out on white: rows are images, columns methods or targets.

    Args:
        rows: at least one row with at least one panel.
        width: of a panel in pixels, at least 120; landscape pictures fill it, portraits are narrower.
        widest: of the whole in pixels, at least 600. Panels shrink for it; where that would make them narrower than
            200, rows go on below, with an empty place under their first panel.

    Returns:
        An RGB image.

    Raises:
        ValueError: there is nothing to draw, or `width` or `widest` is too small for text.
        TypeError: a row is no Row.
    """
    _check(rows, width, widest)
    rows, width = _within(rows, width, widest)
    drawn = [[_draw(panel, width) if panel else None for panel in row.panels] for row in rows]
    drawn = [row for row in drawn if any(row)]
    widths = [max(tile.width if tile else 0 for tile in column) for column in zip_longest(*drawn)]
    heights = [max(tile.height for tile in row if tile) for row in drawn]
    margin, gap, row_gap = (round(width * share) for share in (_MARGIN, _GAP, _ROW_GAP))
    lefts = _starts(widths, margin, gap)
    tops = _starts(heights, margin, row_gap)
    canvas = Image.new("RGB", (lefts[-1] - gap + margin, tops[-1] - row_gap + margin), _WHITE)
    for row, top in zip(drawn, tops, strict=False):
        for tile, left in zip(row, lefts, strict=False):
            if tile:
                canvas.paste(tile, (left, top))
    return canvas


def _check(rows: Sequence[Row], width: int, widest: int) -> None:
    for row in rows:
        if not isinstance(row, Row):
            raise TypeError(f"`rows` holds a {type(row).__name__}; give Row([Panel(...), ...])")
    if not any(panel for row in rows for panel in row.panels):
        raise ValueError("`rows` holds no panel; give at least one Row with one Panel")
    if width < 120:
        raise ValueError(f"`width` is {width}; text needs panels of at least 120 pixels")
    if widest < 600:
        raise ValueError(f"`widest` is {widest}; a photo and a map beside it need at least 600 pixels")


def _within(rows: Sequence[Row], width: int, widest: int) -> tuple[Sequence[Row], int]:
    """Rows that are short enough, and the width of a panel by which they fit."""
    most = max(len(row.panels) for row in rows)
    across = max(n for n in range(1, most + 1) if n <= 2 or _extent(n, min(width, _NARROW)) <= widest)
    if most > across:
        per_line = math.ceil((most - 1) / math.ceil((most - 1) / (across - 1)))
        rows = [line for row in rows for line in _continued(row, per_line)]
        across = 1 + per_line
    while _extent(across, width) > widest:
        width -= 1
    return rows, width


def _continued(row: Row, per_line: int) -> list[Row]:
    first, *others = row.panels
    lines = [others[i : i + per_line] for i in range(0, len(others), per_line)] or [[]]
    return [Row([None if i else first, *line]) for i, line in enumerate(lines)]


def _extent(columns: int, width: int) -> int:
    """How wide a figure of full columns is, in pixels."""
    return columns * width + (columns - 1) * round(width * _GAP) + 2 * round(width * _MARGIN)


def _starts(sizes: Sequence[int], margin: int, gap: int) -> list[int]:
    """Where each of `sizes` starts, and where the next one would."""
    return [margin + sum(sizes[:i]) + i * gap for i in range(len(sizes) + 1)]


def _draw(panel: Panel, width: int) -> Image.Image:
    """A panel as a tile: title, subtitle, picture, bar, each in a place of its own so that rows line up."""
    picture = _fitted(panel.image, width)
    # Narrow pictures keep room for their words.
    across = max(picture.width, round(0.6 * width))
    title, subtitle = _line(width, _TITLE), _line(width, _SUBTITLE)
    pad = round(width * 0.025)
    top = title + subtitle + pad
    below = pad + round(width * _BAR) + 2 * _line(width, _NUMBERS) + pad if panel.bar else 0
    tile = Image.new("RGB", (across, top + picture.height + below), _WHITE)
    draw = ImageDraw.Draw(tile)
    _write(draw, panel.title, (0, title // 2), width * _TITLE, across, _INK, bold=0.012)
    _write(draw, panel.subtitle, (0, title + subtitle // 2), width * _SUBTITLE, across, _SOFT)
    tile.paste(picture, (0, top))
    if panel.bar:
        _draw_bar(tile, panel.bar, top + picture.height + pad, width)
    return tile


def _draw_bar(tile: Image.Image, bar: Bar, top: int, width: int) -> None:
    draw = ImageDraw.Draw(tile)
    height = round(width * _BAR)
    colours = bar.table()(np.linspace(0, 1, tile.width - 2))
    strip = np.broadcast_to((colours * 255).round().astype(np.uint8), (height - 2, tile.width - 2, 3))
    draw.rectangle((0, top, tile.width - 1, top + height - 1), outline=_LINE)
    tile.paste(Image.fromarray(np.ascontiguousarray(strip)), (1, top + 1))
    line = _line(width, _NUMBERS)
    y = top + height + round(width * 0.012) + line // 2
    size = width * _NUMBERS
    for place, number in zip((0.0, 0.5, 1.0), bar.scale.ticks(), strict=True):
        _write(
            draw,
            number,
            (place * (tile.width - 1), y),
            size,
            tile.width / 3,
            _INK,
            anchor="lmr"[round(2 * place)],
        )
    note = ", ".join(words for words in (bar.units, bar.scale.note()) if words)
    _write(draw, note, ((tile.width - 1) / 2, y + line), size, tile.width, _SOFT, anchor="m")


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    at: tuple[float, float],
    size: float,
    across: float,
    fill: tuple[int, int, int],
    anchor: str = "l",
    bold: float = 0.0,
) -> None:
    """One line of text, vertically centred on `at`, at most `across` pixels wide; a stroke makes it bold."""
    stroke = bold * size
    font, drawn = fit(text, size, across - 2 * stroke, size * _SHRINK)
    if drawn:
        draw.text(at, drawn, font=font, fill=fill, anchor=f"{anchor}m", stroke_width=stroke)


def _line(width: int, share: float) -> int:
    return round(width * share * 1.45)


def _fitted(image: Image.Image, width: int) -> Image.Image:
    """A picture as RGB, as large as the box of a panel allows."""
    image = as_photo(image)
    zoom = min(width / image.width, _TALLEST * width / image.height)
    size = (max(1, round(image.width * zoom)), max(1, round(image.height * zoom)))
    return image.resize(size, Image.Resampling.LANCZOS if zoom < 1 else Image.Resampling.BICUBIC)
