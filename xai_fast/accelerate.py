"""Makes other libraries faster in place: `xai_fast.accelerate("captum")`; `python -m xai_fast.accelerate script.py`.

The library's classes get methods that run on our engine where a call is covered, and return what the library returns:
layout, dtype, normalisation and, for the same seeds, the same draws. What is not covered runs the library's own code;
`report()` says what did and why.
"""

from __future__ import annotations

import argparse
import importlib
import runpy
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType

from xai_fast._callable import make_callable
from xai_fast.compat.patches import Library, switch_off, switch_on
from xai_fast.compat.tally import TALLY, Report

__all__ = ["Acceleration", "Report", "accelerate", "off", "report", "reset"]

_NAMES = ("captum", "pytorch_grad_cam", "torchcam", "lime", "shap", "quantus")
_LIBRARIES = {name: f"xai_fast.compat.{name}" for name in _NAMES}


class Acceleration:
    """What `accelerate` switched on. As a context manager it is switched off at the end of the block."""

    def __init__(self, libraries: Sequence[Library]) -> None:
        self._libraries = tuple(libraries)

    @property
    def libraries(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(library.name for library in self._libraries)

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        switch_off(self._libraries)

    def __repr__(self) -> str:
        return f"accelerate({', '.join(map(repr, self.libraries))})"


def accelerate(*names: str) -> Acceleration:
    """Accelerates libraries in place, whether they have been imported or will be.

    The methods of their classes are replaced for the whole process, all threads included; objects made before count.
    `attribute.__wrapped__` is the library's own function. Nothing is imported that was not.

    Args:
        names: of libraries, "captum", "pytorch_grad_cam", "torchcam", "lime", "shap" or "quantus"; none: every
            installed one.

    Returns:
        What was switched on; `with xai_fast.accelerate("captum"): ...` switches it off again, `accelerate.off()` all.

    Raises:
        ValueError: an unknown library.
        ModuleNotFoundError: one that is not installed.
    """
    for name in names:
        if name not in _LIBRARIES:
            raise ValueError(f"`names` holds {name!r}; give {' or '.join(map(repr, _LIBRARIES))}, or nothing for all")
    libraries = [_library(name) for name in names or _LIBRARIES]
    if names:
        for library in libraries:
            if not library.installed:
                raise ModuleNotFoundError(f"`names` holds {library.name!r}, which is not installed", name=library.name)
    libraries = [library for library in libraries if library.installed]
    switch_on(libraries)
    return Acceleration(libraries)


def off() -> None:
    """Gives every library its own methods back, however often `accelerate` was called."""
    switch_off([_library(name) for name in _LIBRARIES], for_all=True)


def report() -> Report:
    """Calls accelerated, calls passed on to the library and why, and their time, since the start or `reset`."""
    return TALLY.report()


def reset() -> None:
    """Counts from 0 again."""
    TALLY.reset()


def _library(name: str) -> Library:
    return importlib.import_module(_LIBRARIES[name]).LIBRARY


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a script or a module with every installed library accelerated."""
    parser = argparse.ArgumentParser(
        prog="python -m xai_fast.accelerate",
        usage="%(prog)s [--report] [--always] (script.py | -m module) [arguments ...]",
        description="Runs a script or a module with every installed library accelerated.",
    )
    parser.add_argument("--report", action="store_true", help="say at the end, on stderr, what was accelerated")
    parser.add_argument(
        "--always", action="store_true", help="serve calls however little work they are, as the libraries' own tests do"
    )
    parser.add_argument("-m", dest="module", action="store_true", help="run a module, as python -m does")
    parser.add_argument("program", help="the script, or with -m the module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    asked = parser.parse_args(argv)
    accelerate()
    try:
        with importlib.import_module("xai_fast.compat.worth").always() if asked.always else nullcontext():
            _run(asked.program, asked.arguments, module=asked.module)
    finally:
        if asked.report:
            print(report(), file=sys.stderr)


def _run(program: str, arguments: Sequence[str], *, module: bool) -> None:
    """As `python program` or `python -m program` would."""
    sys.argv = [program, *arguments]
    if module:
        sys.path[0] = str(Path.cwd())
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(program).resolve().parent)
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
else:
    make_callable(__name__, accelerate)
