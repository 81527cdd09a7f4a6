"""Text for pictures: a font that has the letters, and strings that fit their place."""

from __future__ import annotations

import functools
import unicodedata

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Pillow's own font has little beyond ASCII. Names in other scripts use the best of these that is installed.
_WIDER_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSans-Regular.ttf",
    "DejaVuSans.ttf",
    "PingFang.ttc",
    "Arial Unicode.ttf",
    "LiberationSans-Regular.ttf",
)
_ELLIPSIS = "..."
_LONGEST = 500
# Signs that Pillow's font lacks and plain ones stand for, so that a minus sign does not change the font.
_PLAINER = str.maketrans("\N{MINUS SIGN}\N{EN DASH}\N{EM DASH}\N{MULTIPLICATION SIGN}", "---x")


def font_and_text(text: str, size: float) -> tuple[Font, str]:
    """A font of `size` pixels for one line of text, and the text as that font can draw it.

    Line breaks and control characters become spaces. Pillow's own font is preferred, so that pictures look
    the same everywhere. What no font at hand has is written without its accent, or as "?".
    """
    # Cut first: measuring a megabyte of hostile label takes long, and Pillow refuses it.
    text = "".join(c if c.isprintable() else " " for c in text[:_LONGEST])
    text = " ".join(text.split()).translate(_PLAINER)
    own = _font(None, size)
    if not _missing(text, None):
        return own, text
    name = min((None, *_installed()), key=lambda candidate: len(_missing(text, candidate)))
    lost = _missing(text, name)
    return _font(name, size), "".join(_plain(c) if c in lost else c for c in text)


def fit(text: str, size: float, width: float, smallest: float) -> tuple[Font, str]:
    """The font and the text that fit `width` pixels: smaller down to `smallest`, then cut with dots."""
    while True:
        font, drawn = font_and_text(text, size)
        if font.getlength(drawn) <= width:
            return font, drawn
        if size <= smallest:
            break
        size = max(smallest, size * 0.94)
    # The longest prefix that fits, by bisection.
    low, high = 0, len(drawn)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(drawn[:middle] + _ELLIPSIS) <= width else (low, middle - 1)
    return font, drawn[:low].rstrip() + _ELLIPSIS


@functools.cache
def _font(name: str | None, size: float) -> Font:
    return ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)


@functools.cache
def _installed() -> tuple[str, ...]:
    found = []
    for name in _WIDER_FONTS:
        try:
            ImageFont.truetype(name, 16)
        except OSError:
            continue
        found.append(name)
    return tuple(found)


def _missing(text: str, name: str | None) -> frozenset[str]:
    return frozenset(c for c in set(text) if not c.isspace() and not _has(c, name))


@functools.lru_cache(maxsize=4096)
def _has(character: str, name: str | None) -> bool:
    """Whether a font draws something else for a character than for one that Unicode leaves undefined."""
    return _drawing(character, name) != _drawing("\uffff", name)


def _drawing(character: str, name: str | None) -> bytes:
    image = Image.new("L", (48, 48))
    ImageDraw.Draw(image).text((4, 4), character, font=_font(name, 32), fill=255)
    return image.tobytes()


def _plain(character: str) -> str:
    kept = "".join(c for c in unicodedata.normalize("NFKD", character) if c.isascii() and c.isprintable())
    return kept or "?"
