"""One shard: images as they are decoded, in batches that never cross its border, to a table that is written at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xai_fast._printing import reason

from .answers import MODEL_ERROR, Answer, Attributor
from .decoding.pool import Decoded
from .manifest import Manifest
from .plan import Plan
from .store.maps import SUMMARIES, quantised, summaries
from .store.schema import PROPERTIES, schema_of
from .store.shards import Shards


@dataclass(frozen=True)
class Job:
    """A run, ready to be worked on by any executor.

    Attributes:
        plan: frozen.
        manifest: frozen.
        shards: where results go.
        attributor: answers.
    """

    plan: Plan
    manifest: Manifest
    shards: Shards
    attributor: Attributor

    @property
    def images_per_call(self) -> int:
        """Images that share the model's batches."""
        return int(self.plan.fixed["attribution"]["images_per_call"])


@dataclass
class ShardWork:
    """A shard in work; batches are the same whatever was in them before, and whoever makes them."""

    job: Job
    index: int
    _began: float = field(default_factory=time.perf_counter)
    _busy: float = 0.0
    _found: list[Decoded] = field(default_factory=list)
    _answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        start, stop = self.job.plan.span(self.index)
        self._rows = self.job.manifest.rows(start, stop)
        known = self.job.plan.fixed["attribution"]["labels"]
        self._labels = [known.get(row["label"]) for row in self._rows]

    @property
    def complete(self) -> bool:
        """Whether every row has its answer."""
        return len(self._answers) == len(self._rows)

    def take(self, found: Decoded) -> list[str]:
        """Takes the next image of the shard; the statuses of those that this finished."""
        self._found.append(found)
        batch = self._found[len(self._answers) :]
        if len(batch) < self.job.images_per_call and len(self._found) < len(self._rows):
            return []
        began = time.perf_counter()
        answers = self._asked(batch)
        self._busy += time.perf_counter() - began
        self._answers += answers
        return [answer.status for answer in answers]

    def write(self) -> dict[str, Any]:
        """Writes the shard; what it says of itself.

        Raises:
            StoreError: the disk refused it.
        """
        seconds = {"seconds": time.perf_counter() - self._began, "model_seconds": self._busy}
        return self.job.shards.write(self.index, self._table(), seconds)

    def _asked(self, batch: Sequence[Decoded]) -> list[Answer]:
        """Answers about a batch: of those that were decoded, images of one shape together."""
        answers = [Answer(status=found.status, error=found.error) for found in batch]
        inputs: dict[int, Any] = {}
        alike: dict[tuple[int, ...], list[int]] = {}
        for place, found in enumerate(batch):
            if found.pixels is None:
                continue
            try:
                inputs[place] = self.job.attributor.input_of(found)
                alike.setdefault(tuple(inputs[place].shape), []).append(place)
            except (Exception, SystemExit) as error:
                answers[place] = _failed(error)
        for places in alike.values():
            rows = [batch[place].position for place in places]
            ids, labels = [self._rows[row]["id"] for row in rows], [self._labels[row] for row in rows]
            together = self._asked_together([inputs[place] for place in places], ids, labels)
            for place, answer in zip(places, together, strict=True):
                answers[place] = answer
        return answers

    def _asked_together(self, inputs: Sequence[Any], ids: Sequence[int], labels: Sequence[int | None]) -> list[Answer]:
        """Where a batch fails, each of its images alone: one that the model cannot take costs itself."""
        try:
            return self.job.attributor(inputs, ids, labels)
        except (Exception, SystemExit) as error:
            if len(inputs) == 1:
                return [_failed(error)]
        return [
            answer
            for one, number, label in zip(inputs, ids, labels, strict=True)
            for answer in self._asked_together([one], [number], [label])
        ]

    def _table(self) -> pa.Table:
        attribution = self.job.plan.fixed["attribution"]
        metadata = self.job.manifest.metadata
        schema = schema_of(self.job.plan.maps, attribution["embedding"], metadata)
        columns: dict[str, Any] = {
            "id": [row["id"] for row in self._rows],
            "uri": [row["uri"] for row in self._rows],
            "status": [answer.status for answer in self._answers],
            "error": [answer.error for answer in self._answers],
            "width": [found.size and found.size[0] for found in self._found],
            "height": [found.size and found.size[1] for found in self._found],
            "label": self._labels,
            "label_name": [row["label"] for row in self._rows],
            "target": [answer.target for answer in self._answers],
            "embedding": [answer.embedding for answer in self._answers],
            **{name: [row[name] for row in self._rows] for name in metadata},
            **_predictions(self._answers, self._labels),
        }
        for place, name in enumerate(PROPERTIES):
            columns[name] = [found.properties and found.properties[place] for found in self._found]
        for one in self.job.plan.maps:
            columns |= _map_columns(one.label, self._answers)
        arrays = [_array(columns[field.name], field.type) for field in schema]
        return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """A column; what is not a number is null, so that what reads it needs to know one kind of nothing."""
    if pa.types.is_floating(kind):
        values = [None if value is None or np.isnan(value) else value for value in values]
    return pa.array(values, kind)


def _failed(error: BaseException) -> Answer:
    return Answer(status=MODEL_ERROR, error=f"{type(error).__name__}: {reason(error)}")


def _predictions(answers: Sequence[Answer], labels: Sequence[int | None]) -> dict[str, list[Any]]:
    """What the model predicts: the likeliest class, its probability, its score's distance to the next, the label's."""
    names = ("prediction", "probability", "margin", "label_probability")
    rows = [_prediction(answer.outputs, label) for answer, label in zip(answers, labels, strict=True)]
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def _prediction(outputs: NDArray[np.float32] | None, label: int | None) -> tuple[Any, ...]:
    if outputs is None or not np.isfinite(outputs).all():
        return None, None, None, None
    scores = outputs.astype(np.float64)
    if len(scores) == 1:  # one logit tells two classes apart
        scores = np.array([0.0, scores[0]])
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    best, second = np.argsort(-scores, kind="stable")[:2]
    of_label = shares[label] if label is not None and label < len(shares) else None
    return int(best), shares[best], scores[best] - scores[second], of_label


def _map_columns(label: str, answers: Sequence[Answer]) -> Mapping[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        f"{label}.{name}": [None] * len(answers)
        for name in ("heatmap", "height", "width", "scale", "zero", "evaluations", *SUMMARIES)
    }
    alike: dict[tuple[int, ...], list[int]] = {}
    for place, answer in enumerate(answers):
        columns[f"{label}.evaluations"][place] = answer.evaluations.get(label)
        if (found := answer.maps.get(label)) is not None:
            alike.setdefault(found.shape, []).append(place)
    for shape, places in alike.items():
        maps = np.stack([answers[place].maps[label] for place in places])
        kept, numbers = quantised(maps), summaries(maps)
        for row, place in enumerate(places):
            columns[f"{label}.heatmap"][place] = kept.levels[row].tobytes()
            columns[f"{label}.height"][place], columns[f"{label}.width"][place] = shape
            columns[f"{label}.scale"][place], columns[f"{label}.zero"][place] = kept.scale[row], kept.zero[row]
            for name, found in numbers.items():
                columns[f"{label}.{name}"][place] = found[row]
    return columns
