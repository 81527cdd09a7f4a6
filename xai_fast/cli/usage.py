"""What the commands share: modes, lists of names, and wrong usage in one message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import typer

from xai_fast._printing import text_of

from .console import problem

USAGE = 2


class Mode(StrEnum):
    """Precision of the evaluations."""

    exact = "exact"
    fast = "fast"
    turbo = "turbo"


@contextmanager
def usage() -> Iterator[None]:
    """What is refused, or fails, before anything ran ends in one message and exit code 2, not in a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except (ValueError, TypeError) as error:
        problem(text_of(error) or type(error).__name__)
        raise typer.Exit(USAGE) from None
    except BaseException as error:  # a file of the user's may raise anything, `sys.exit` among it
        problem(f"{type(error).__name__}: {text_of(error)}")
        raise typer.Exit(USAGE) from None


def split(names: list[str]) -> tuple[str, ...]:
    """Names that were repeated or separated by commas."""
    return tuple(name.strip() for entry in names for name in entry.split(",") if name.strip())


def folder_named(text: str | Path) -> Path:
    """A folder to write into, which an empty name is not: it would be the current one."""
    if not str(text).strip():
        raise typer.BadParameter("it came empty; name a folder, or `.` for the current one")
    return Path(text)
