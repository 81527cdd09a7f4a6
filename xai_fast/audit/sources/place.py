"""Where files lie: on a disk, or behind a URL that fsspec knows."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Any, BinaryIO

from xai_fast._printing import printable

from .payload import Part, Payload


class Place:
    """A folder, to which names are relative; names may also be whole paths or URLs.

    Args:
        root: the folder.
    """

    def __init__(self, root: str) -> None:
        self._root = root

    def where(self, name: str) -> str:
        """A name in full."""
        if is_url(name) or os.path.isabs(name):
            return name
        return f"{self._root.rstrip('/')}/{name}" if is_url(self._root) else os.path.join(self._root, name)

    def payload(self, name: str, offset: int | None = None, length: int | None = None) -> Payload:
        """A file or a part of it, for a process that decodes; what is behind a URL is read here."""
        full = self.where(name)
        if is_url(full):
            files, path = file_system(full)
            # By name: file systems put further arguments between these.
            end = None if offset is None or length is None else offset + length
            return files.cat_file(path, start=offset, end=end)
        return Path(full) if offset is None or length is None else Part(Path(full), offset, length)

    def open(self, name: str) -> BinaryIO:
        """A file to read, anywhere in it."""
        full = self.where(name)
        if not is_url(full):
            return open(full, "rb")
        files, path = file_system(full)
        return files.open(path, "rb")


def is_url(text: str) -> bool:
    """Whether it names something by a protocol."""
    return "://" in text


def file_system(url: str) -> tuple[Any, str]:
    """Fsspec's file system for a URL, and the path in it.

    Raises:
        ValueError: fsspec, or what it needs for this protocol, is not installed.
    """
    try:
        import fsspec

        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ValueError(f"`data` {printable(url)} cannot be opened: {error}") from None


def matching(pattern: str) -> list[str]:
    """The files that a path, URL or pattern (`*`, `?`, `[...]`) names, in order."""
    if not is_url(pattern):
        return [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern))
    files, path = file_system(pattern)
    protocol = pattern.partition("://")[0]
    if files.exists(path):
        return [pattern]
    return [f"{protocol}://{found.lstrip('/')}" for found in sorted(files.glob(path))]


def by_name(paths: list[str]) -> dict[str, str]:
    """Files by their own names.

    Raises:
        ValueError: two have one name.
    """
    names = {path.rpartition("/")[2]: path for path in paths}
    if len(names) < len(paths):
        raise ValueError("`data` names files of one name in several folders; give one folder's")
    return names
