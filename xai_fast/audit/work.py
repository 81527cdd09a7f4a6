"""One shard: images as they are decoded, in batches that never cross its border, to a table that is written at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from xai_fast._printing import reason

from .answers import MODEL_ERROR, Answer, Attributor
from .backoff import LEFT_OUT, Backoff
from .columns import array_of, columns_of
from .decoding.pool import Decoded
from .manifest import Manifest
from .plan import Plan
from .store.schema import schema_of
from .store.shards import Shards

_MOST_ROWS = 256  # that an engine takes by itself


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

    @property
    def most_halvings(self) -> int:
        """How often batches can be halved until a single image's single row is left."""
        rows = self.plan.fixed["attribution"].get("batch_size", "auto")
        return max(self.images_per_call, rows if isinstance(rows, int) else 0, _MOST_ROWS).bit_length()


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
        self._backoff = Backoff.of(self.job.shards.backoff(self.index))
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
        began, before = time.perf_counter(), len(self._answers)
        while size := self._next_batch():
            start = len(self._answers)
            answers = self._answered(self._found[start : start + size])
            if answers is None:
                continue
            self._answers += answers
            for place in range(start, len(self._answers)):
                self._found[place] = replace(self._found[place], pixels=None)  # a shard of photographs would be large
        self._busy += time.perf_counter() - began
        return [answer.status for answer in self._answers[before:]]

    def _next_batch(self) -> int:
        """How many images the next batch has; 0 where they are not all there."""
        start = len(self._answers)
        times = self._backoff.at(start)
        size = 1 if times == LEFT_OUT else max(1, self.job.images_per_call >> times)
        size = min(size, len(self._rows) - start)
        return size if len(self._found) >= start + size else 0

    def _answered(self, batch: Sequence[Decoded]) -> list[Answer] | None:
        """Answers; None where memory ran out, and the batch is another now, which is noted on the disk."""
        start = len(self._answers)
        times = self._backoff.at(start)
        if times == LEFT_OUT:
            return [Answer(status=MODEL_ERROR, error="MemoryError: memory ran out, however few rows ran together")]
        try:
            return self._asked(batch, times)
        except MemoryError:
            pass
        if times >= self.job.most_halvings:
            self._backoff.leave_out(start)
        else:
            self._backoff.halve(start)
        self.job.shards.note_backoff(self.index, self._backoff.steps)
        return None

    def write(self) -> dict[str, Any]:
        """Writes the shard; what it says of itself.

        Raises:
            StoreError: the disk refused it.
        """
        seconds = {"seconds": time.perf_counter() - self._began, "model_seconds": self._busy}
        return self.job.shards.write(self.index, self._table(), seconds, self._backoff.steps)

    def _asked(self, batch: Sequence[Decoded], halvings: int) -> list[Answer]:
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
            together = self._asked_together([inputs[place] for place in places], ids, labels, halvings)
            for place, answer in zip(places, together, strict=True):
                answers[place] = answer
        return answers

    def _asked_together(
        self, inputs: Sequence[Any], ids: Sequence[int], labels: Sequence[int | None], halvings: int
    ) -> list[Answer]:
        """Where a batch fails, each of its images alone: one that the model cannot take costs itself."""
        try:
            return self.job.attributor(inputs, ids, labels, halvings)
        except MemoryError:
            raise
        except (Exception, SystemExit) as error:
            if len(inputs) == 1:
                return [_failed(error)]
        return [
            answer
            for one, number, label in zip(inputs, ids, labels, strict=True)
            for answer in self._asked_together([one], [number], [label], halvings)
        ]

    def _table(self) -> pa.Table:
        metadata = self.job.manifest.metadata
        schema = schema_of(self.job.plan.maps, self.job.plan.fixed["attribution"]["embedding"], metadata)
        columns: dict[str, Any] = {
            "id": [row["id"] for row in self._rows],
            "uri": [row["uri"] for row in self._rows],
            "label_name": [row["label"] for row in self._rows],
            **{name: [row[name] for row in self._rows] for name in metadata},
            **columns_of(self._found, self._answers, self._labels, [one.label for one in self.job.plan.maps]),
        }
        return pa.Table.from_arrays([array_of(columns[field.name], field.type) for field in schema], schema=schema)


def _failed(error: BaseException) -> Answer:
    return Answer(status=MODEL_ERROR, error=f"{type(error).__name__}: {reason(error)}")
