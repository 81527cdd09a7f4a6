"""Shards worked on in this process, one after the other, while images of the next are being decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial

from xai_fast.audit.decoding.pool import Decoded, Request
from xai_fast.audit.sources.payload import Source
from xai_fast.audit.work import Job, ShardWork

from .contract import Watch, Worked


def run_shards(
    job: Job,
    indexes: Iterable[int],
    source: Source,
    stream: Callable[[Iterable[Request]], Iterator[Decoded]],
    watch: Watch,
) -> Worked:
    """Makes the shards that are missing.

    A shard is claimed when the first of its images is decoded, and let go when it is written, or this ends.

    Args:
        job: the run.
        indexes: of the shards that are this process's.
        source: of the images.
        stream: decodes.
        watch: is told.

    Raises:
        StoreError: a shard could not be written; those before it are.
    """
    claims = _Claims(job, source)
    written: list[int] = []
    work: ShardWork | None = None
    with claims:
        for found in stream(claims.requests(indexes)):
            work = work or ShardWork(job, found.shard)
            watch.images(work.take(found))
            if work.complete:
                work.write()
                claims.release()
                written.append(work.index)
                watch.shard(work.index)
                work = None
    return Worked(written, claims.left)


class _Claims:
    """The shards in work: claimed when their images are asked for, in this order, and let go one by one, or all."""

    def __init__(self, job: Job, source: Source) -> None:
        self._job, self._source = job, source
        self._held: deque[ExitStack] = deque()
        self.left: list[int] = []

    def __enter__(self) -> _Claims:
        return self

    def __exit__(self, *_: object) -> None:
        while self._held:
            self.release()

    def release(self) -> None:
        """Lets the shard go that was claimed first."""
        self._held.popleft().close()

    def requests(self, indexes: Iterable[int]) -> Iterator[Request]:
        """The images of shards that are missing, as far as nobody else works on them."""
        for index in indexes:
            claim = ExitStack()
            claimed = claim.enter_context(self._job.shards.claimed(index))
            if not claimed or self._job.shards.facts(index) is not None:
                claim.close()
                self.left += [] if claimed else [index]
                continue
            self._held.append(claim)
            for position, row in enumerate(self._job.manifest.rows(*self._job.plan.span(index))):
                mask = None
                if self._job.masks and row["mask"] is not None:
                    mask = partial(self._source.fetch, {**row, "uri": row["mask"]})
                yield Request(index, position, partial(self._source.fetch, row), mask)
