"""A run read back: its rows as a table, its maps as tensors, how far it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from xai_fast._printing import printable

from .plan import Plan
from .store.schema import OK
from .store.shards import Shards

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class AuditRun:
    """A run in a folder, finished or not; what is whole is read.

    The shards are plain Parquet: `pandas.read_parquet(run.directory / "shards")` reads them as well.

    Attributes:
        directory: of the run.
        plan: what it does.
    """

    directory: Path
    plan: Plan

    @property
    def shards(self) -> Shards:
        """Its shards."""
        return Shards(self.directory, self.plan.fingerprint, self.plan.sizes)

    @property
    def done(self) -> list[int]:
        """Shards that are there."""
        shards = self.shards
        return [index for index in range(len(shards)) if shards.facts(index) is not None]

    @property
    def complete(self) -> bool:
        """Whether all are there."""
        return len(self.done) == len(self.plan.sizes)

    @property
    def counts(self) -> dict[str, int]:
        """Images by status, of the shards that are there."""
        counts: Counter[str] = Counter()
        shards = self.shards
        for index in range(len(shards)):
            counts.update((shards.facts(index) or {"counts": {}})["counts"])
        return dict(counts)

    @property
    def methods(self) -> tuple[str, ...]:
        """Labels of the methods, which the names of their columns start with."""
        return tuple(one.label for one in self.plan.maps)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of classes by index: the model's, else those of the labels."""
        if named := self.plan.about.get("classes"):
            return tuple(named)
        found = {index: name for name, index in self.plan.fixed["attribution"]["labels"].items()}
        return tuple(found.get(index, f"class {index}") for index in range(max(found, default=-1) + 1))

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows, in the order of the manifest.

        Args:
            columns: names; None for all.

        Raises:
            ValueError: an unknown column, or a damaged shard.
        """
        schema = self.schema
        if unknown := [name for name in columns or () if name not in schema.names]:
            raise ValueError(f"`columns` holds {unknown[0]!r}; there are {', '.join(schema.names)}")
        chosen = None if columns is None else list(columns)
        shards = self.shards
        parts = [shards.read(index, chosen).replace_schema_metadata(None) for index in self.done]
        if not parts:
            return schema.empty_table() if chosen is None else schema.empty_table().select(chosen)
        return pa.concat_tables(parts)

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        found = self.plan.fixed["manifest"]["metadata"]
        return self.plan.schema_with({name: pa.type_for_alias(kind) for name, kind in found.items()})

    def frame(self, columns: Sequence[str] | None = None) -> Any:
        """The rows as a pandas data frame."""
        return self.table(columns).to_pandas()

    def maps(self, method: str | None = None) -> Tensor:
        """The maps (n, 1, h, w) of the images that have one, float32, in the order of `table`; within half a step.

        Args:
            method: its label; None where there is only one.

        Raises:
            ValueError: no such method, or maps of several shapes.
        """
        import torch

        if method is None and len(self.methods) == 1:
            (method,) = self.methods
        if method not in self.methods:
            raise ValueError(f"`method` came as {method!r}; the run has {', '.join(self.methods)}")
        names = [f"{method}.{name}" for name in ("heatmap", "height", "width", "scale", "zero")]
        found = self.table(["status", *names])
        found = found.filter(found.column(names[0]).is_valid())
        shapes = set(zip(found.column(names[1]).to_pylist(), found.column(names[2]).to_pylist(), strict=True))
        if len(shapes) > 1:
            raise ValueError(f"the maps of {method} have {len(shapes)} shapes; read their rows with `table`")
        height, width = shapes.pop() if shapes else (0, 0)
        levels = np.frombuffer(b"".join(found.column(names[0]).to_pylist()), np.uint8).reshape(-1, height, width)
        scale, zero = (found.column(name).to_numpy()[:, None, None] for name in names[3:])
        return torch.from_numpy((levels * scale + zero).astype(np.float32))[:, None]

    def __repr__(self) -> str:
        counts = self.counts
        shown, failed = printable(str(self.directory)), sum(counts.values()) - counts.get(OK, 0)
        of = f"{sum(counts.values())} of {sum(self.plan.sizes)} images, {failed} failed"
        return f"<AuditRun {shown}: {', '.join(self.methods)}; {of}>"


def read(directory: str | Path) -> AuditRun:
    """The run in a folder.

    Raises:
        ValueError: there is none.
    """
    directory = Path(directory)
    plan = Plan.load(directory)
    if plan is None:
        raise ValueError(f"{printable(str(directory))} holds no audit; give the folder that `out` named")
    return AuditRun(directory, plan)
