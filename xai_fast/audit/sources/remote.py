"""A folder of images behind a URL, classes by its folders."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from xai_fast.audit.manifest import Manifest, manifest_of

from .folder import SUFFIXES, left_out
from .payload import Payload
from .place import Place, file_system


class RemoteFolder:
    """As `Folder`, behind a URL.

    Args:
        url: of the folder.
    """

    def __init__(self, url: str) -> None:
        self._url, self._place = url, Place(url)

    def manifest(self) -> Manifest:
        """See `Source`; in the order of the names."""
        files, root = file_system(self._url)
        prefix, others, rows = root.rstrip("/") + "/", Counter[str](), []
        for path, facts in sorted(files.find(root, detail=True).items()):
            name = path.removeprefix(prefix).lstrip("/")
            if any(part.startswith(".") for part in name.split("/")):
                continue
            if (suffix := os.path.splitext(name)[1].lower()) in SUFFIXES:
                label, slash, _ = name.partition("/")
                rows.append({"uri": name, "length": facts.get("size"), "label": label if slash else None})
            else:
                others[suffix or "without a suffix"] += 1
        return manifest_of(rows, left_out(others))

    def fetch(self, row: dict[str, Any]) -> Payload:
        """See `Source`."""
        return self._place.payload(row["uri"])
