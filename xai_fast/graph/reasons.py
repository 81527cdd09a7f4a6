"""Why something does not apply, in words short enough for a note."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a note."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
