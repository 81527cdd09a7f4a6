"""What the examples take on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path


def parse(description: str | None, out: str, arguments: list[str] | None) -> argparse.Namespace:
    """`--out` and `--coarse`.

    Args:
        description: the example's docstring, for `--help`.
        out: where the picture goes unless told otherwise.
        arguments: what was given; None: the process's own.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(out), help="the picture to write")
    parser.add_argument("--coarse", action="store_true", help="fewer steps and samples, for a quick look")
    return parser.parse_args(arguments)
