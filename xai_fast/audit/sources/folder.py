"""A folder of images, classes by its folders: every file that is named like an image is an item, sound or not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xai_fast._printing import printable
from xai_fast.audit.manifest import Manifest, manifest_of, name_of

from .payload import Payload

# What is named like an image is listed, also formats that are refused afterwards: nothing goes unsaid.
SUFFIXES = frozenset(
    f".{name}"
    for names in (
        ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "tif", "tiff", "gif"),
        ("eps", "ps", "psd", "svg", "heic", "heif", "avif", "jp2", "j2k", "ico", "tga", "ppm", "pgm", "pbm", "pnm"),
        ("fits", "fit", "dds", "exr", "hdr", "dcm", "dng", "cr2", "nef", "arw", "raw"),
    )
    for name in names
)


class Folder:
    """Images below a folder; the first folder on the way to an image is its label.

    Hidden files and folders are left out, and so are files of other names, of which the manifest's notes speak. Links
    to folders are followed, but not back to where they come from.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def manifest(self) -> Manifest:
        """See `Source`; in the order of the names' bytes."""
        others: Counter[str] = Counter()
        found = sorted(self._below(os.fsencode(self._root), b"", (), others))
        rows = []
        for name, size in found:
            label, slash, _ = name.partition(b"/")
            rows.append({**name_of(name), "length": size, "label": _text(label) if slash else None})
        return manifest_of(rows, left_out(others))

    def fetch(self, row: dict[str, Any]) -> Payload:
        """See `Source`."""
        name = row["uri"] if row["raw"] is None else os.fsdecode(row["raw"])
        return self._root / name

    def _below(
        self, folder: bytes, prefix: bytes, above: tuple[tuple[int, int], ...], others: Counter[str]
    ) -> Iterator[tuple[bytes, int]]:
        """Names relative to the root, and sizes."""
        try:
            here = os.stat(folder)
            entries = list(os.scandir(folder))
        except OSError as error:
            shown = printable(os.fsdecode(folder))
            raise ValueError(f"`data` {shown} cannot be listed ({error.strerror}); make it readable") from None
        place = (here.st_dev, here.st_ino)
        if place in above:
            yield prefix.rstrip(b"/"), 0  # a link back to where it comes from: an item that cannot be read
            return
        for entry in entries:
            if entry.name.startswith(b"."):
                continue
            name = prefix + entry.name
            if _is_folder(entry):
                yield from self._below(entry.path, name + b"/", (*above, place), others)
            elif (suffix := os.path.splitext(os.fsdecode(entry.name))[1].lower()) in SUFFIXES:
                yield name, _size(entry)
            else:
                others[suffix or "without a suffix"] += 1


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _size(entry: os.DirEntry[bytes]) -> int:
    try:
        return entry.stat().st_size
    except OSError:
        return 0


def _text(raw: bytes) -> str:
    return name_of(raw)["uri"]


def left_out(others: Counter[str]) -> tuple[str, ...]:
    """What was left out, in words."""
    if not others:
        return ()
    kinds = ", ".join(f"{printable(kind)} {count}" for kind, count in others.most_common(4))
    return (f"{sum(others.values())} files are not named like images and were left out ({kinds})",)
