"""The command line `xai-fast`: parse, call, print. Help and listings do not import torch."""

from __future__ import annotations


def main() -> None:
    """Runs `xai-fast` and exits: 0 ok, 2 wrong usage, 3 finished with failed items, 130 interrupted."""
    import sys

    from .app import app

    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # a terminal that lacks a letter shows its escape; help and errors of options go there
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    app()
