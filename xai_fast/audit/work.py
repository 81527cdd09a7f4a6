"""One shard: images as they are decoded, in batches that never cross its border, to a table that is written at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from .answers import MODEL_ERROR, Answer, Attributor
from .asking import MOST_ROWS, asked
from .backoff import LEFT_OUT, Backoff
from .columns import array_of, columns_of, mask_columns, noise_columns
from .decoding.pool import Decoded
from .manifest import Manifest
from .plan import Plan
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

    @property
    def masks(self) -> bool:
        """Whether masks are decoded."""
        return bool(self.plan.fixed["attribution"].get("masks"))

    @property
    def most_halvings(self) -> int:
        """How often batches can be halved until a single image's single row is left."""
        rows = self.plan.fixed["attribution"].get("batch_size", "auto")
        return max(self.images_per_call, rows if isinstance(rows, int) else 0, MOST_ROWS).bit_length()


@dataclass
class ShardWork:
    """A shard in work; batches are the same whatever was in them before, and whoever makes them."""

    job: Job
    index: int
    _began: float = field(default_factory=time.perf_counter)
    _busy: float = 0.0
    _waiting: list[Decoded] = field(default_factory=list)
    _parts: list[pa.Table] = field(default_factory=list)  # of batches: maps are bytes there, and pictures are let go
    _done: int = 0

    def __post_init__(self) -> None:
        self._backoff = Backoff.of(self.job.shards.backoff(self.index))
        start, stop = self.job.plan.span(self.index)
        self._rows = self.job.manifest.rows(start, stop)
        known = self.job.plan.fixed["attribution"]["labels"]
        self._labels = [known.get(row["label"]) for row in self._rows]

    @property
    def complete(self) -> bool:
        """Whether every row has its answer."""
        return self._done == len(self._rows)

    def take(self, found: Decoded) -> list[str]:
        """Takes the next image of the shard; the statuses of those that this finished."""
        self._waiting.append(found)
        began, statuses = time.perf_counter(), []
        while not self.complete and (size := self._next_batch()):
            answers = self._answered(self._waiting[:size])
            if answers is None:
                continue
            self._parts.append(self._table(self._waiting[:size], answers))
            self._waiting, self._done = self._waiting[size:], self._done + size
            statuses += [answer.status for answer in answers]
        self._busy += time.perf_counter() - began
        return statuses

    def _next_batch(self) -> int:
        """How many images the next batch has; 0 where they are not all there."""
        times = self._backoff.at(self._done)
        size = 1 if times == LEFT_OUT else max(1, self.job.images_per_call >> times)
        size = min(size, len(self._rows) - self._done)
        return size if len(self._waiting) >= size else 0

    def _answered(self, batch: Sequence[Decoded]) -> list[Answer] | None:
        """Answers; None where memory ran out, and the batch is another now, which is noted on the disk."""
        times, part = self._backoff.at(self._done), self._part(len(batch))
        if times == LEFT_OUT:
            return [Answer(status=MODEL_ERROR, error="MemoryError: memory ran out, however few rows ran together")]
        try:
            return asked(self.job.attributor, batch, [row["id"] for row in self._rows[part]], self._labels[part], times)
        except MemoryError:
            pass
        if times >= self.job.most_halvings:
            self._backoff.leave_out(self._done)
        else:
            self._backoff.halve(self._done)
        self.job.shards.note_backoff(self.index, self._backoff.steps)
        return None

    def _part(self, size: int) -> slice:
        return slice(self._done, self._done + size)

    def write(self) -> dict[str, Any]:
        """Writes the shard; what it says of itself.

        Raises:
            StoreError: the disk refused it.
        """
        seconds = {"seconds": time.perf_counter() - self._began, "model_seconds": self._busy}
        table = pa.concat_tables(self._parts).combine_chunks()
        return self.job.shards.write(self.index, table, seconds, self._backoff.steps)

    def _table(self, batch: Sequence[Decoded], answers: Sequence[Answer]) -> pa.Table:
        metadata, part = self.job.manifest.metadata, self._part(len(batch))
        schema = self.job.plan.schema_with(metadata)
        rows, maps = self._rows[part], [one.label for one in self.job.plan.maps]
        columns: dict[str, Any] = {
            "id": [row["id"] for row in rows],
            "uri": [row["uri"] for row in rows],
            "label_name": [row["label"] for row in rows],
            **{name: [row[name] for row in rows] for name in metadata},
            **columns_of(batch, answers, self._labels[part], maps),
            **(noise_columns(answers, maps) if self.job.plan.noisy else {}),
            **(mask_columns(batch, answers, maps) if self.job.masks else {}),
        }
        return pa.Table.from_arrays([array_of(columns[field.name], field.type) for field in schema], schema=schema)
