"""The model and the photographs of a run, to ask what happens when a picture is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xai_fast.audit.attribution import input_of
from xai_fast.audit.decoding.pool import Decoders, Request
from xai_fast.audit.identity import identity
from xai_fast.audit.manifest import Manifest
from xai_fast.audit.order import Order, made
from xai_fast.audit.plan import MANIFEST
from xai_fast.audit.reading import AuditRun
from xai_fast.audit.sources.choose import source_of
from xai_fast.audit.sources.payload import Source
from xai_fast.engine import Engine, Recipe
from xai_fast.engine.reducers.clean import clean_scores
from xai_fast.images.preprocess import Preprocess

from .cues import Picture

_PER_CALL = 32


class NoSubjectError(ValueError):
    """The model or the photographs of a run are not at hand; says why."""


@dataclass(frozen=True, eq=False)
class Subject:
    """See `subject_of`.

    Attributes:
        engine: of the model.
        decoders: make the pictures that the model sees.
        source: of the photographs.
        manifest: of the run.
    """

    engine: Engine
    decoders: Decoders
    source: Source
    manifest: Manifest

    def pictures(self, positions: Sequence[int]) -> dict[int, Picture]:
        """What the model sees of images, (h, w, 3) uint8, by their places; those that can be read."""
        wanted = [int(position) for position in positions]
        requests = (Request(0, n, lambda n=n: self.source.fetch(self._row(n))) for n in wanted)
        found = {}
        for photo in self.decoders.stream(requests):
            if photo.pixels is not None:
                pixels = photo.pixels
                found[photo.position] = np.stack([pixels] * 3, -1) if pixels.ndim == 2 else pixels
        return found

    def probabilities(self, pictures: Sequence[Picture]) -> NDArray[np.float64]:
        """(N, K) of pictures as `pictures` makes them; all of one size."""
        parts = []
        for start in range(0, len(pictures), _PER_CALL):
            batch = torch.stack([input_of(one, self.engine.preprocess) for one in pictures[start : start + _PER_CALL]])
            parts.append(self._outputs(batch))
        return np.concatenate(parts)

    def _outputs(self, batch: torch.Tensor) -> NDArray[np.float64]:
        outcome, _ = self.engine.run(lambda _inputs: Recipe(clean_scores()), batch, None)
        if outcome.outputs is None or outcome.outputs.ndim != 2:
            raise NoSubjectError("the model has no class scores (N, K), so that no probability can change")
        scores = outcome.outputs.double().cpu()
        if scores.shape[1] == 1:  # one logit tells two classes apart
            scores = torch.cat([torch.zeros_like(scores), scores], 1)
        return scores.softmax(1).numpy()

    def _row(self, position: int) -> dict[str, Any]:
        (row,) = self.manifest.rows(position, position + 1)
        return row


@contextmanager
def subject_of(run: AuditRun, model: Any = None, data: Any = None, preprocess: Any = None) -> Iterator[Subject]:
    """The model and the photographs of a run.

    Args:
        run: which.
        model: what `audit` was given; None where its plan names it.
        data: likewise.
        preprocess: likewise.

    Raises:
        NoSubjectError: they are not at hand, are others than the run's, or their pictures cannot be changed.
    """
    known = run.plan.about.get("order") or {}
    model, data = known.get("model") if model is None else model, known.get("data") if data is None else data
    if model is None or data is None:
        raise NoSubjectError("the run was begun from Python with objects; give `model` and `data` to confirm findings")
    order = Order(
        model=model,
        data=data,
        methods=(),
        weights=known.get("weights"),
        preprocess=preprocess,
        mode=run.plan.fixed["attribution"]["mode"],
    )
    attribution = run.plan.fixed["attribution"]
    try:
        engine, _ = made(order, run.plan.fixed["decisions"])
        source, manifest = source_of(data), Manifest.load(run.directory / MANIFEST)
    except (ValueError, TypeError, OSError) as error:
        raise NoSubjectError(str(error)) from error
    if identity(engine.model) != attribution["model"]:
        raise NoSubjectError("`model` is another than the run's: its weights or modules differ")
    if not isinstance(engine.preprocess, Preprocess):
        raise NoSubjectError("the run's preprocessing is a callable, which says not what part of a photograph it takes")
    if not isinstance(attribution["preprocess"], dict) or engine.preprocess.crop is None:
        raise NoSubjectError("the model takes pictures of many sizes, between which nothing can be exchanged")
    with Decoders(attribution["preprocess"], workers=1, ahead=16) as decoders:
        yield Subject(engine, decoders, source, manifest)
