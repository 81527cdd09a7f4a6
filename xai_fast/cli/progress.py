"""How far a run is: a bar over model rows on a terminal; nothing where the output goes to a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rich import progress as rich

from xai_fast._printing import printable
from xai_fast.engine import Engine

from .console import err


class Progress:
    """A context in which the engine's calls move the bar; `begin` says of which image.

    Args:
        engine: whose calls are shown.
        n_images: how many images there will be.
    """

    def __init__(self, engine: Engine, n_images: int) -> None:
        self._engine = engine
        self._n_images = n_images
        self._begun = 0
        self._bar = rich.Progress(
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TextColumn("model rows"),
            rich.TimeElapsedColumn(),
            console=err,
            transient=True,
            # What rich puts in the streams' place would write to the console that writes to it, and so for ever.
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("")

    def __enter__(self) -> Progress:
        self._bar.start()
        self._report(lambda done, total: self._bar.update(self._task, completed=done, total=total))
        return self

    def begin(self, name: str) -> None:
        """The next image, or what else is worked on."""
        self._begun += 1
        said = f"{printable(name)} ({self._begun} of {self._n_images})".replace("[", r"\[")
        self._bar.update(self._task, description=said, completed=0, total=None)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Takes the bar away while something else is printed."""
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._report(False)

    def _report(self, progress: bool | Callable[[int, int], Any]) -> None:
        self._engine.settings = replace(self._engine.settings, progress=progress)
