"""Where the command line prints: results to standard output, problems to standard error; nothing there stops a run."""

from __future__ import annotations

import io
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import IO, Any, cast

from rich.console import Console
from rich.text import Text

from xai_fast._printing import printable


def prepare_streams() -> None:
    """Makes the process's own streams safe to print help and errors of options to, which do not come through here."""
    for number in (0, 1, 2):  # one that came closed would be the number of the next file that is opened, and printed to
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.flush()
            safe = io.BufferedWriter(_Lossy(stream.fileno()))
            lines = stream.line_buffering
            setattr(sys, name, io.TextIOWrapper(safe, stream.encoding, "backslashreplace", line_buffering=lines))


class _Lossy(io.RawIOBase):
    """A file of the process whose failures nobody hears of, at the interpreter's exit neither.

    What prints help, errors of options or a model's own words knows nothing of pipes without readers and full disks.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def write(self, data: Any) -> int:
        try:
            return os.write(self._number, data)
        except OSError:  # the rest goes nowhere
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._number)
            os.close(nowhere)
            return len(data)


class _Stream:
    """Standard output or standard error, as it is at each call: what cannot be printed must not stop what is written.

    Characters that the terminal lacks are escaped. Once writing fails (the reader of a pipe is gone, a disk is full),
    the rest goes nowhere, at the interpreter's exit too.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def _stream(self) -> Any:
        return getattr(sys, self._name)

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        encoding = self.encoding
        self._try(lambda stream: stream.write(text.encode(encoding, "backslashreplace").decode(encoding)))
        return len(text)

    def flush(self) -> None:
        self._try(lambda stream: stream.flush())

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except (AttributeError, ValueError, OSError):
            return False

    def fileno(self) -> int:
        return self._stream.fileno()

    def _try(self, act: Any) -> None:
        try:
            act(self._stream)
        except (OSError, ValueError, AttributeError):  # gone, closed, never there
            self._mute()

    def _mute(self) -> None:
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except (OSError, ValueError, AttributeError):  # no file behind it, so that nothing is left to flush either
            pass


# Lines for machines must not be broken at the width of a terminal that is not there.
out = Console(file=cast(IO[str], _Stream("stdout")), highlight=False, soft_wrap=True)
err = Console(file=cast(IO[str], _Stream("stderr")), highlight=False, soft_wrap=True)


def problem(message: str) -> None:
    """One line about what went wrong, as plain text: file names may look like markup, or hold escapes."""
    err.print(Text.assemble(("error: ", "bold red"), "\n".join(map(printable, message.splitlines()))))


def line(*parts: str | tuple[str, str]) -> None:
    """Results; a part is text, or text with its style."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    out.print(Text.assemble(*(("\n".join(map(printable, text.split("\n"))), style) for text, style in pairs)))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as what they hold, whatever the terminal's width: none is cut off. Numbers stand on the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    numeric = [bool(rows) and all(map(_is_number, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate((header, *rows)):
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        line(("  ".join(cells).rstrip(), "" if number else "bold"))


def paragraph(text: str, indent: int, style: str = "") -> None:
    """A text indented, broken at the width of the terminal; in one line where the output is none."""
    if out.is_terminal:
        text = textwrap.fill(text, max(out.width - indent, 20), break_long_words=False, break_on_hyphens=False)
    line((textwrap.indent(text, " " * indent), style))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
