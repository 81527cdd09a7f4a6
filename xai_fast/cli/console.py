"""Where the command line prints: results to standard output, problems to standard error."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

# Lines for machines must not be broken at the width of a terminal that is not there.
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def problem(message: str) -> None:
    """One line about what went wrong, as plain text: file names may look like markup."""
    err.print(Text.assemble(("error: ", "bold red"), message))


def line(*parts: str | tuple[str, str]) -> None:
    """One line of results; a part is text, or text with its style."""
    out.print(Text.assemble(*parts))
