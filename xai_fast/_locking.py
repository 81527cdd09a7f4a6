"""One process at a time: the operating system's lock on an open file, which ends with the process, whatever ends it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO


def locked(file: BinaryIO) -> bool:
    """Takes the lock of an open file; False where another process has it."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: better unguarded than unusable
        return True
    return True


def opened_for_locking(path: Path) -> BinaryIO:
    """The file at `path`, made where it is missing; never through a link that somebody laid there."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "r+b")


def is_at(file: BinaryIO, path: Path) -> bool:
    """Whether the open file is still the one at `path`: whoever held it may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
