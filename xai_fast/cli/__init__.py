"""The command line `xai-fast`: parse, call, print. Help and listings do not import torch."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs `xai-fast` and exits: 0 ok, 2 wrong usage, 3 finished with failed items, 130 interrupted."""
    try:
        from .app import app
        from .console import prepare_streams

        prepare_streams()
    except KeyboardInterrupt:  # before anything that would answer it
        sys.exit(130)
    app()
