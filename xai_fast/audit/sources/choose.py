"""Which kind of source some data are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xai_fast._printing import printable

from .folder import Folder
from .payload import Source


def source_of(data: Any) -> Source:
    """The source that a path or URL names.

    Args:
        data: a folder (classes by its folders), a .csv or .parquet table, a .tar file or a pattern of several, also
            behind a URL that `fsspec` knows.

    Raises:
        ValueError, TypeError: it names none of these.
    """
    if not isinstance(data, str | Path):
        raise TypeError(f"`data` came as {type(data).__name__}; give a path or a URL")
    path = Path(data)
    if path.is_dir():
        return Folder(path)
    shown = printable(str(data))
    if not path.exists():
        raise ValueError(f"`data` {shown} does not exist; give a folder of images")
    raise ValueError(f"`data` {shown} is no folder; give a folder of images")
