"""Which files the results of each image go to: never two to one name, never to one that another's file has."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from xai_fast.report.files import is_ours

_LONGEST = 255  # bytes of a file's name on nearly all file systems


def stems_for(
    names: Iterable[str], suffixes: Sequence[str], occupied: Callable[[str], bool] = lambda name: False
) -> list[str]:
    """A file stem per name: the name itself, numbered ("cat-2") where one of its files would meet another's.

    Args:
        names: what the images are called; equal ones, and one that is another's with a suffix ("cat.GradCAM"), pass.
        suffixes: of the files that every stem gets, such as ".png" and ".GradCAM.png". Whatever the file system, names
            that differ by case or by Unicode's composition alone count as one.
        occupied: whether a file name is not to be written, because of what is there.
    """
    longest = _LONGEST - max((len(os.fsencode(suffix)) for suffix in suffixes), default=0) - len("-99999")
    claimed: set[str] = set()
    counts: dict[str, int] = {}
    stems = []
    for name in names:
        name = _cut(name, longest)
        n = counts.get(name, 0)
        while True:
            n += 1
            stem = name if n == 1 else f"{name}-{n}"
            files = {stem + suffix for suffix in suffixes}
            keys = {_key(file) for file in files}
            if not keys & claimed and not any(map(occupied, files)):
                break
        counts[name] = n
        claimed |= keys
        stems.append(stem)
    return stems


def occupied_in(directory: Path, inputs: Iterable[str | os.PathLike[str]]) -> Callable[[str], bool]:
    """Whether a name in a folder is of a file that must stay: one of the `inputs`, or one that we did not write."""
    kept = {os.path.realpath(path) for path in inputs}

    def occupied(name: str) -> bool:
        path = directory / name
        return os.path.lexists(path) and (os.path.realpath(path) in kept or not is_ours(path))

    return occupied


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def _cut(name: str, most: int) -> str:
    while len(os.fsencode(name)) > most:
        name = name[:-1]
    return name
