"""Files that appear whole or not at all: a reader never meets half a picture, not even after Ctrl-C."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from PIL import Image, PngImagePlugin

MARK = "xai_fast"
"""Near the beginning of every file of results, so that a later run knows which files it may replace."""
_BEGINNING = 1024
_KINDS = (b"\x89PNG", b"\xff\xd8\xff", b"<!doctype html>", b'{"__metadata__":{"xai_fast"')


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds results of ours: a picture, a page or values that carry the mark."""
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            beginning = file.read(_BEGINNING)
    except OSError:
        return False
    kind = beginning if beginning[:1] in (b"\x89", b"<", b"\xff") else beginning[8:]
    return kind.startswith(_KINDS) and MARK.encode() in beginning


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> Path:
    """Make or replace the file at `path` with what `write` puts into the open binary file it is given.

    The bytes go to a temporary file in the same folder, which is then renamed: rename is atomic only within
    a file system. Missing folders are made. Whatever goes wrong, the temporary file is removed and an older
    file stays as it was. The file is not synced to the disk: this guards against failures of the process, not
    of the power.

    Returns:
        `path` as a Path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A short name of its own: the final name plus a suffix could exceed what the file system allows. Opened
    # by "x" rather than tempfile, whose files only their owner may read.
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(part, "xb") as file:
            write(file)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return path


def png(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file with our mark."""
    facts = PngImagePlugin.PngInfo()
    facts.add_text("Software", MARK)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=facts)
    return buffer.getvalue()


def save_png(image: Image.Image, path: str | os.PathLike[str]) -> Path:
    """Save a picture as PNG with our mark, whatever the suffix of `path`, by `write_atomically`."""
    return write_atomically(path, lambda file: file.write(png(image)))


def save_jpeg(image: Image.Image, path: str | os.PathLike[str]) -> Path:
    """As `save_png`, a tenth as large: for sheets of many pictures, whose single ones are kept as PNG."""
    return write_atomically(path, lambda file: image.save(file, format="JPEG", quality=88, comment=MARK.encode()))
