"""What a source of images can do, and what it hands to the processes that decode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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

        A mask is asked for as an image is, by a row whose `uri` is the mask's.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        ...
