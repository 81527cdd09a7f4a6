"""The model and the photographs of a run, to ask what happens when a picture is changed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xai_fast.audit.identity import identity
from xai_fast.audit.inputs import input_of
from xai_fast.audit.order import Order, made
from xai_fast.audit.photographs import Photographs, photographs_of
from xai_fast.audit.reading import AuditRun
from xai_fast.audit.together import Together
from xai_fast.engine import Engine, Recipe
from xai_fast.engine.evaluate import LayerActivation
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
        photographs: of the run.
        layer: whose mean over positions is the run's embedding; None where there is none.
    """

    engine: Engine
    photographs: Photographs
    layer: str | None = None

    def pictures(self, positions: Sequence[int]) -> dict[int, Picture]:
        """What the model sees of images, (h, w, 3) uint8, by their places; those that can be read."""
        return self.photographs.pictures(positions)

    def probabilities(self, pictures: Sequence[Picture]) -> NDArray[np.float64]:
        """(N, K) of pictures as `pictures` makes them; all of one size."""
        return self.answers(pictures, None)[0]

    def answers(
        self, pictures: Sequence[Picture], layer: str | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
        """The same, and what a layer makes of them, averaged over positions (N, D); None where none is named."""
        parts: list[NDArray[np.float64]] = []
        embedded: list[torch.Tensor] = []
        for start in range(0, len(pictures), _PER_CALL):
            batch = torch.stack([input_of(one, self.engine.preprocess) for one in pictures[start : start + _PER_CALL]])
            parts.append(self._outputs(batch, layer, embedded))
        return np.concatenate(parts), torch.cat(embedded).numpy() if embedded else None

    def _outputs(self, batch: torch.Tensor, layer: str | None, embedded: list[torch.Tensor]) -> NDArray[np.float64]:
        def recipe_of(inputs: torch.Tensor) -> Recipe:
            if layer is None:
                return Recipe(clean_scores())
            readings = dict(zip((layer,), self.engine.readings((layer,), inputs, flat=True), strict=True))
            plain = Recipe(clean_scores(), clean=LayerActivation((layer,)), readings=readings)
            together = Together([plain], layer)
            together.embedding = embedded
            return dataclasses.replace(plain, reduce=together)

        outcome, _ = self.engine.run(recipe_of, batch, None)
        if outcome.outputs is None or outcome.outputs.ndim != 2:
            raise NoSubjectError("the model has no class scores (N, K), so that no probability can change")
        scores = outcome.outputs.double().cpu()
        if scores.shape[1] == 1:  # one logit tells two classes apart
            scores = torch.cat([torch.zeros_like(scores), scores], 1)
        return scores.softmax(1).numpy()


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
    stack = ExitStack()
    try:
        engine, _ = made(order, run.plan.fixed["decisions"])
        _same(engine, run)
        photographs = stack.enter_context(photographs_of(run, data))
    except (ValueError, TypeError, OSError) as error:
        raise NoSubjectError(str(error)) from error
    with stack:
        yield Subject(engine, photographs, run.plan.fixed["attribution"].get("embedding_layer"))


def _same(engine: Engine, run: AuditRun) -> None:
    """Refuses a model that is not the run's, and pictures between which nothing can be exchanged.

    Raises:
        ValueError: says which.
    """
    attribution = run.plan.fixed["attribution"]
    if identity(engine.model) != attribution["model"]:
        raise ValueError("`model` is another than the run's: its weights or modules differ")
    if not isinstance(engine.preprocess, Preprocess):
        raise ValueError("the run's preprocessing is a callable, which says not what part of a photograph it takes")
    if json.loads(json.dumps(dataclasses.asdict(engine.preprocess))) != attribution["preprocess"]:
        raise ValueError("`preprocess` is another than the run's")
    if engine.preprocess.crop is None:
        raise ValueError("the model takes pictures of many sizes, between which nothing can be exchanged")
