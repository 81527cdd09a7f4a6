"""What every executor is told, and tells."""

from __future__ import annotations

from dataclasses import dataclass, field

from xai_fast.audit.manifest import Manifest
from xai_fast.audit.plan import Plan
from xai_fast.audit.store.shards import Shards


class ExecutorError(RuntimeError):
    """Those who worked on a run ended before it did; whole shards are there, and a resume goes on."""


class Watch:
    """Who is told how far a run is; says nothing itself."""

    def begin(self, plan: Plan, manifest: Manifest, shards: Shards) -> None:
        """The plan is frozen."""

    def images(self, statuses: list[str]) -> None:
        """So many images are answered."""

    def shard(self, index: int) -> None:
        """A shard is there."""

    def said(self, words: str) -> None:
        """Something happened that people should know."""


@dataclass
class Worked:
    """What was done.

    Attributes:
        written: shards that were made.
        left: shards that other processes were working on.
    """

    written: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
