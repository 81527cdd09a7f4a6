"""Which kind of source some data are, and what each of them can do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from xai_fast._printing import printable

if TYPE_CHECKING:  # the processes that decode know payloads, and no tables
    from xai_fast.audit.manifest import Manifest


@dataclass(frozen=True)
class Part:
    """Bytes inside a file."""

    path: Path
    offset: int
    length: int


Payload = Path | Part | bytes
"""What a process that decodes is given: a file, a part of one, or bytes."""


class Source(Protocol):
    """A set of images."""

    def manifest(self) -> Manifest:
        """Lists them.

        Raises:
            ValueError: they cannot be listed, or there are none.
        """
        ...

    def fetch(self, row: dict[str, Any]) -> Payload:
        """Where the image of a row of the manifest is; called from several threads.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        ...


def source_of(data: Any) -> Source:
    """The source that a path or URL names.

    Args:
        data: a folder (classes by its folders), a .csv or .parquet table, a .tar file or a pattern of several, also
            behind a URL that `fsspec` knows.

    Raises:
        ValueError, TypeError: it names none of these.
    """
    from .folder import Folder

    if not isinstance(data, str | Path):
        raise TypeError(f"`data` came as {type(data).__name__}; give a path or a URL")
    path = Path(data)
    if path.is_dir():
        return Folder(path)
    shown = printable(str(data))
    if not path.exists():
        raise ValueError(f"`data` {shown} does not exist; give a folder of images")
    raise ValueError(f"`data` {shown} is no folder; give a folder of images")
