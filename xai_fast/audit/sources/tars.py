"""Tar files as WebDataset lays them out: what belongs to one sample has one name and different endings."""

from __future__ import annotations

import json
import os
import tarfile
from typing import Any

from xai_fast._printing import printable
from xai_fast.audit.manifest import Manifest, manifest_of

from .folder import SUFFIXES
from .payload import Payload
from .place import Place, by_name

_MOST_TEXT = 1 << 20  # bytes of a label


class Tars:
    """Images inside uncompressed tar files; `.cls` beside one, or "label" in a `.json`, is its label.

    Nothing is unpacked: an image is read where it lies, so that one can be read without those before it.

    Args:
        paths: of the files, or their URLs.
    """

    def __init__(self, paths: list[str]) -> None:
        self._paths = by_name(paths)

    def manifest(self) -> Manifest:
        """See `Source`; in the order of the files' names, then of what is in them."""
        rows: list[dict[str, Any]] = []
        for name, path in self._paths.items():
            try:
                rows += self._in(name, path)
            except (tarfile.TarError, OSError, EOFError) as error:
                raise ValueError(f"`data` {printable(path)} cannot be read as an uncompressed tar: {error}") from None
        return manifest_of(rows)

    def fetch(self, row: dict[str, Any]) -> Payload:
        """See `Source`."""
        return Place("").payload(self._paths[row["file"]], row["offset"], row["length"])

    def _in(self, name: str, path: str) -> list[dict[str, Any]]:
        rows, labels = [], {}
        with Place("").open(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                key, suffix = _parts(member.name)
                if suffix in (".cls", ".json") and member.size <= _MOST_TEXT:
                    content = tar.extractfile(member)
                    labels[key] = labels.get(key) or _label(suffix, content.read() if content else b"")
                elif os.path.splitext(member.name)[1].lower() in SUFFIXES:
                    uri = f"{name}/{member.name.encode('utf-8', 'backslashreplace').decode()}"
                    place = {"file": name, "offset": member.offset_data, "length": member.size}
                    rows.append({"uri": uri, "key": key, **place})
        return [{**row, "label": labels.get(row["key"])} for row in rows]


def _parts(name: str) -> tuple[str, str]:
    """A sample's key, which ends at the first dot of the file's own name, and the last ending."""
    folder, slash, own = name.rpartition("/")
    return folder + slash + own.partition(".")[0], os.path.splitext(own)[1].lower()


def _label(suffix: str, content: bytes) -> str | None:
    text = content.decode("utf-8", "replace").strip()
    if suffix == ".cls":
        return text or None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    label = found.get("label") if isinstance(found, dict) else None
    return str(label) if isinstance(label, str | int) else None
