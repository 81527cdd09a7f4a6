"""Which kind of source some data are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from xai_fast._printing import printable

from .folder import Folder
from .payload import Source
from .place import file_system, is_url, matching
from .remote import RemoteFolder
from .table import ImageTable, PathTable
from .tars import Tars

_FITS = "give a folder of images, a .csv or .parquet table, or .tar files"


def source_of(data: Any) -> Source:
    """The source that a path, URL or pattern names.

    Args:
        data: a folder (classes by its folders), a .csv or .parquet table, a .tar file, or a pattern of several; on a
            disk, or behind a URL that fsspec knows.

    Raises:
        ValueError, TypeError: it names none of these.
    """
    if not isinstance(data, str | Path):
        raise TypeError(f"`data` came as {type(data).__name__}; give a path or a URL")
    text = str(data)
    if not is_url(text) and os.path.isdir(text):
        return Folder(Path(text))
    try:
        paths = matching(text)
    except OSError as error:
        raise ValueError(f"`data` {printable(text)} cannot be listed: {error}") from None
    if not paths:
        raise ValueError(f"`data` {printable(text)} does not exist; {_FITS}")
    if is_url(text) and len(paths) == 1:
        files, path = file_system(paths[0])
        if files.isdir(path):
            return RemoteFolder(text)
    return _of_files(paths)


def _of_files(paths: list[str]) -> Source:
    kinds = {os.path.splitext(path)[1].lower() for path in paths}
    if kinds == {".tar"}:
        return Tars(paths)
    try:
        if kinds == {".parquet"} and ImageTable.holds(paths[0]):
            return ImageTable(paths)
    except (OSError, ValueError) as error:
        raise ValueError(f"`data` {printable(paths[0])} cannot be read as Parquet: {error}") from None
    if len(paths) == 1 and kinds <= {".csv", ".parquet"}:
        return PathTable(paths[0])
    shown = printable(paths[0])
    raise ValueError(f"`data` {shown}{' and others are' if len(paths) > 1 else ' is'} of no kind that fits; {_FITS}")
