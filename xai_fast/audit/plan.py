"""The frozen plan of a run: everything that could change a byte of it, chosen before the first shard is made."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from xai_fast._printing import printable

from .store.schema import Map, schema_of
from .store.shards import freeze

PLAN, MANIFEST = "plan.json", "manifest.parquet"
_FORMAT = 1
_LEAST, _MOST = 16, 4096  # images of a shard
_SHARDS_WANTED = 2000
_ROWS_OF_A_SHARD = 16_384  # model rows: a killed process loses at most the work of one shard


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
        fixed: what could change a byte, as JSON; two runs with the same `fixed` write the same bytes on one machine.
        about: what else is known of the run, such as what was typed; changes nothing.
    """

    fixed: Mapping[str, Any]
    about: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """Of `fixed`; every shard carries it."""
        return hashlib.sha256(json.dumps(self.fixed, sort_keys=True).encode()).hexdigest()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each shard."""
        total, size = self.fixed["manifest"]["images"], self.fixed["shard_size"]
        return tuple(min(size, total - start) for start in range(0, total, size))

    def span(self, index: int) -> tuple[int, int]:
        """Which rows of the manifest a shard holds."""
        start = index * self.fixed["shard_size"]
        return start, start + self.sizes[index]

    @property
    def maps(self) -> tuple[Map, ...]:
        """What each method's maps are."""
        return maps_of(self.fixed["attribution"]["methods"])

    @property
    def noisy(self) -> bool:
        """Whether some images are explained once more on a noisy copy."""
        return bool(self.fixed["attribution"].get("noise"))

    @property
    def looks(self) -> bool:
        """Whether `store.schema.LOOKS` and `CODES` are kept; runs that were begun before have none."""
        return bool(self.fixed.get("decoding", {}).get("looks"))

    def schema_with(self, metadata: Mapping[str, Any]) -> pa.Schema:
        """The columns of a shard, and further ones of the manifest with their Arrow types."""
        attribution = self.fixed["attribution"]
        masks = bool(attribution.get("masks"))
        return schema_of(self.maps, attribution["embedding"], metadata, noise=self.noisy, masks=masks, looks=self.looks)

    def freeze(self, directory: Path, manifest: bytes) -> None:
        """Writes the plan and the manifest, unless another process just has.

        Raises:
            StoreError: the folder cannot be written to.
        """
        about = {"made": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M UTC}", **self.about}
        content = {"format": _FORMAT, "fingerprint": self.fingerprint, "about": about, "fixed": self.fixed}
        text = json.dumps(content, indent=1, ensure_ascii=True) + "\n"
        freeze(directory, {MANIFEST: manifest, PLAN: text.encode()}, last=PLAN)

    @staticmethod
    def load(directory: Path) -> Plan | None:
        """The plan in a folder; None where there is none.

        Raises:
            ValueError: it cannot be read, was changed, or is of another version.
        """
        path, shown = directory / PLAN, printable(str(directory / PLAN))
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise ValueError(f"`out` {printable(str(directory))} is a file; give a folder, or a new name") from None
        except (OSError, ValueError) as error:
            raise ValueError(f"{shown} cannot be read ({error}); give another folder") from None
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            raise ValueError(f"{shown} is no plan of this version; give another folder")
        plan = Plan(found["fixed"], found["about"])
        if plan.fingerprint != found["fingerprint"]:
            raise ValueError(f"{shown} was changed after the run began; put it back, or give another folder")
        return plan

    def refuse_other(self, other: Plan) -> None:
        """Refuses a plan that would write other bytes than this one, which is frozen.

        Raises:
            ValueError: says what differs.
        """
        if differences := list(_differences(self.fixed, other.fixed)):
            more = f", and {len(differences) - 3} more" if len(differences) > 3 else ""
            raise ValueError(
                f"`out` holds a run with another plan: {'; '.join(differences[:3])}{more}. "
                "Give the same arguments to go on with it, or another folder"
            )


def maps_of(methods: Sequence[Mapping[str, Any]]) -> tuple[Map, ...]:
    """What the maps of methods are, as an attributor describes them."""
    return tuple(Map(one["label"], None if one["map"] is None else tuple(one["map"])) for one in methods)


def shard_size_for(images: int, rows_per_image: int) -> int:
    """How many images make a shard, by a fixed rule.

    Args:
        images: of the run.
        rows_per_image: model rows that all methods together take for one.
    """
    by_count = max(64, -(-images // _SHARDS_WANTED))
    by_work = _ROWS_OF_A_SHARD // max(rows_per_image, 1)
    return max(_LEAST, min(_MOST, by_count, by_work))


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            line
            for key in keys
            for line in _differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        ]
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return [f"{path} had {len(old)} entries and has now {len(new)}"]
        pairs = zip(old, new, strict=True)
        return [line for n, (a, b) in enumerate(pairs) for line in _differences(a, b, f"{path}[{n}]")]
    return [] if old == new else [f"{path} was {_short(old)} and is now {_short(new)}"]


def _short(value: Any) -> str:
    text = printable(json.dumps(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
