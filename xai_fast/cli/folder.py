"""The folder of results while a run writes to it: checked before anything slow, and held by one run at a time."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from xai_fast._locking import is_at, locked, opened_for_locking
from xai_fast._printing import printable
from xai_fast.report import occupied_in

LOCK = ".xai-fast.lock"
_RESERVED = 32_768  # bytes held for the page, so that a disk that fills up can still take it


class Folder:
    """A folder that this run alone writes to; a context.

    The lock is the operating system's, on a hidden file: it ends with the process, whatever ends it. Folders that had
    to be made are removed again if nothing was put into them.

    Args:
        directory: made where it does not exist.
        inputs: files that must stay as they are.

    Raises:
        ValueError: on entering: it is a file, cannot be written to, is full, is held by another run, or holds an
            index.html that is none of ours. Nothing has changed then.
    """

    def __init__(self, directory: Path, inputs: tuple[Path, ...] = ()) -> None:
        self.directory = directory
        self.occupied = occupied_in(directory, inputs)
        self._made: list[Path] = []
        self._lock: BinaryIO | None = None

    def __enter__(self) -> Folder:
        shown = printable(str(self.directory))
        try:
            self._make()
            self._hold(shown)
            if self.occupied("index.html"):
                raise ValueError(f"`--out` {shown} holds an index.html that is none of ours; give another folder")
        except OSError as error:
            self._leave()
            raise ValueError(
                f"`--out` {shown} cannot be written to ({error.strerror or error}); give a folder, or a new name"
            ) from None
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def release_reserve(self) -> None:
        """Gives back the space that was held for the page."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._lock.truncate(0)

    def _make(self) -> None:
        missing = [path for path in (self.directory, *self.directory.parents) if not os.path.lexists(path)]
        for path in reversed(missing):
            try:
                path.mkdir()
            except FileExistsError:
                continue  # another run made it meanwhile
            self._made.append(path)
        if not self.directory.is_dir():
            raise NotADirectoryError(0, "a file is in its place")

    def _hold(self, shown: str) -> None:
        path = self.directory / LOCK
        while self._lock is None:
            file = opened_for_locking(path)
            try:
                if not locked(file):
                    raise ValueError(
                        f"`--out` {shown} is being written to by another run; wait for it, or give another"
                    )
                # Whoever held it may have removed it between our opening it and our locking it.
                if not is_at(file, path):
                    continue
                file.truncate(0)
                file.write(bytes(_RESERVED))
                file.flush()
                self._lock = file
            except OSError:
                path.unlink(missing_ok=True)
                raise
            finally:
                if self._lock is None:
                    _close(file)

    def _leave(self) -> None:
        if self._lock is not None:
            with contextlib.suppress(OSError):
                (self.directory / LOCK).unlink(missing_ok=True)
            _close(self._lock)
            self._lock = None
        for path in reversed(self._made):
            try:
                path.rmdir()
            except OSError:  # something was put into it
                break
        self._made = []


def _close(file: BinaryIO) -> None:
    with contextlib.suppress(OSError):  # what was left in its buffer may not fit the disk
        file.close()
