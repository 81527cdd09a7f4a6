"""The photographs of a run once more, as the model saw them: found where the data are, decoded as the plan says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decoding.pool import Decoders, Request
from .manifest import Manifest
from .plan import MANIFEST
from .reading import AuditRun
from .sources.choose import source_of
from .sources.payload import Source


@dataclass(frozen=True, eq=False)
class Photographs:
    """See `photographs_of`.

    Attributes:
        decoders: make the pictures.
        source: of the photographs.
        manifest: of the run.
    """

    decoders: Decoders
    source: Source
    manifest: Manifest

    def pictures(self, positions: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
        """What the model sees of images, (h, w, 3), by their places; those that can be read."""
        wanted = [int(position) for position in positions]
        requests = (Request(0, n, lambda n=n: self.source.fetch(self._row(n))) for n in wanted)
        found = {}
        for photo in self.decoders.stream(requests):
            if photo.pixels is not None:
                pixels = photo.pixels
                found[photo.position] = np.stack([pixels] * 3, -1) if pixels.ndim == 2 else pixels
        return found

    def _row(self, position: int) -> dict[str, Any]:
        (row,) = self.manifest.rows(position, position + 1)
        return row


@contextmanager
def photographs_of(run: AuditRun, data: Any = None) -> Iterator[Photographs]:
    """The photographs of a run.

    Args:
        run: which.
        data: what `audit` was given; None where its plan names it.

    Raises:
        ValueError: they are not at hand.
    """
    known = run.plan.about.get("order") or {}
    data = known.get("data") if data is None else data
    if data is None:
        raise ValueError("the run was begun from Python with objects; give `data`, where its photographs are")
    source, manifest = source_of(data), Manifest.load(run.directory / MANIFEST)
    preprocess = run.plan.fixed["attribution"]["preprocess"]
    with Decoders(preprocess if isinstance(preprocess, dict) else None, workers=1, ahead=16) as decoders:
        yield Photographs(decoders, source, manifest)
