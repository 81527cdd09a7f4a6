"""Files that appear whole or not at all: a reader never meets half a picture, not even after Ctrl-C."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from PIL import Image


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


def save_png(image: Image.Image, path: str | os.PathLike[str]) -> Path:
    """Save a picture as PNG, whatever the suffix of `path`, by `write_atomically`."""
    return write_atomically(path, lambda file: image.save(file, format="PNG"))
