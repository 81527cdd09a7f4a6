"""Shards on the disk: a temporary file, synced, read again, renamed; so that one that is there is whole."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xai_fast._locking import is_at, locked, opened_for_locking
from xai_fast._printing import printable

from .schema import OK

_FACTS = b"xai_fast"
_SHARDS, _TIMES, _CLAIMS, _BACKOFFS = "shards", "times", "claims", "backoffs"


class StoreError(OSError):
    """The folder of a run cannot be written to; what is in it stays as it was."""


class Shards:
    """The shards of one run.

    Args:
        directory: of the run.
        fingerprint: of its plan, which every shard carries.
        sizes: rows of each shard.
    """

    def __init__(self, directory: Path, fingerprint: str, sizes: tuple[int, ...]) -> None:
        self.directory, self._fingerprint, self._sizes = directory, fingerprint, sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def path(self, index: int) -> Path:
        """Where a shard is, or will be."""
        return self.directory / _SHARDS / f"part-{index:05d}.parquet"

    def times(self, index: int) -> Path:
        """Where it says how long a shard took: beside the shards, because that is never twice the same."""
        return self.directory / _TIMES / f"part-{index:05d}.json"

    def prepare(self) -> None:
        """Makes the folders.

        Raises:
            StoreError: they cannot be made.
        """
        with _said(self.directory):
            for folder in (_SHARDS, _TIMES, _CLAIMS):
                (self.directory / folder).mkdir(parents=True, exist_ok=True)

    def facts(self, index: int) -> dict[str, Any] | None:
        """What a whole shard says of itself (`counts` by status, `backoff`); None if there is none or it is damaged."""
        path = self.path(index)
        try:
            found = pq.read_metadata(path)
        except (OSError, pa.ArrowException):
            return None
        try:
            facts = json.loads((found.metadata or {})[_FACTS])
        except (KeyError, ValueError):
            return None
        fits = facts.get("plan") == self._fingerprint and facts.get("shard") == index
        return facts if fits and found.num_rows == self._sizes[index] else None

    def damaged(self, index: int) -> bool:
        """Whether something is in a shard's place that is no shard of this run."""
        return self.path(index).exists() and self.facts(index) is None

    def read(self, index: int, columns: list[str] | None = None) -> pa.Table:
        """The rows of a shard; the checksum of every page is compared.

        Raises:
            ValueError: the shard is damaged.
        """
        try:
            with pq.ParquetFile(self.path(index), page_checksum_verification=True) as file:
                return file.read(columns, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"shard {index} is damaged ({error}); resume the run to make it again") from None

    def backoff(self, index: int) -> list[list[int]]:
        """What was noted of memory that ran out in a shard; see `note_backoff`.

        Raises:
            StoreError: it cannot be read.
        """
        try:
            return json.loads(self._noted(index).read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            shown = printable(str(self._noted(index)))
            raise StoreError(f"{shown} cannot be read ({error}); remove it, and the shard begins anew") from None

    def note_backoff(self, index: int, steps: Sequence[tuple[int, int]]) -> None:
        """Notes, durably, from which rows of a shard on batches are smaller, before anything is made with them.

        Raises:
            StoreError: it cannot be written.
        """
        with _said(self.directory):
            self._noted(index).parent.mkdir(exist_ok=True)
            for left in self._noted(index).parent.glob(f"{self._noted(index).name}.tmp-*"):
                left.unlink(missing_ok=True)
            _put(self._noted(index), (json.dumps(steps) + "\n").encode())

    def _noted(self, index: int) -> Path:
        return self.directory / _BACKOFFS / f"part-{index:05d}.json"

    def write(
        self, index: int, table: pa.Table, seconds: Mapping[str, float], backoff: Sequence[tuple[int, int]] = ()
    ) -> dict[str, Any]:
        """Writes a shard and how long it took, and returns what it says of itself.

        Raises:
            StoreError: it could not be written; nothing of it is left.
        """
        counts: dict[str, int] = {}
        for status in table.column("status").to_pylist():
            counts[status] = counts.get(status, 0) + 1
        facts = {"plan": self._fingerprint, "shard": index, "counts": dict(sorted(counts.items()))}
        facts |= {"backoff": list(backoff)} if backoff else {}
        table = table.replace_schema_metadata({_FACTS: json.dumps(facts)})
        with _said(self.directory):
            self._sweep(index)
            _put(self.times(index), (json.dumps(dict(seconds)) + "\n").encode())
            self._put_table(self.path(index), table)
        return facts

    def _put_table(self, path: Path, table: pa.Table) -> None:
        with _temporary(path) as part:
            with open(part, "xb") as file:
                pq.write_table(
                    table,
                    file,
                    compression="zstd",
                    use_dictionary=["status", "label_name"],  # pyright: ignore[reportArgumentType] - it takes names, too
                    write_page_checksum=True,
                    row_group_size=max(len(table), 1),
                )
                file.flush()
                os.fsync(file.fileno())
            with pq.ParquetFile(part, page_checksum_verification=True) as again:
                if not again.read(use_threads=False).equals(table):
                    raise OSError("what was written reads back as something else")

    def _sweep(self, index: int) -> None:
        """Removes what a killed process left of this shard, which the caller has claimed."""
        for path in (self.path(index), self.times(index), self._noted(index)):
            for left in path.parent.glob(f"{path.name}.tmp-*"):
                left.unlink(missing_ok=True)

    @contextmanager
    def claimed(self, index: int) -> Iterator[bool]:
        """Holds a shard; False where another process does. The lock ends with the process, whatever ends it."""
        path = self.directory / _CLAIMS / f"part-{index:05d}"
        with _said(self.directory):
            file = opened_for_locking(path)
            while (held := locked(file)) and not is_at(file, path):
                file.close()
                file = opened_for_locking(path)
        try:
            yield held
        finally:
            if held:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
            file.close()


def failed(facts: Mapping[str, Any]) -> int:
    """How many rows of a shard are not ok."""
    return sum(count for status, count in facts["counts"].items() if status != OK)


def freeze(directory: Path, files: Mapping[str, bytes], last: str) -> None:
    """Writes files durably, `last` at the end, unless that is there already: of several processes one does.

    Raises:
        StoreError: they could not be written.
    """
    with _said(directory):
        (directory / _CLAIMS).mkdir(parents=True, exist_ok=True)
        with _alone(directory / _CLAIMS / "plan"):
            if (directory / last).exists():
                return
            for left in directory.glob("*.tmp-*"):
                left.unlink(missing_ok=True)
            for name in sorted(files, key=lambda name: name == last):
                _put(directory / name, files[name])


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits until no other process is in here."""
    while True:
        file = opened_for_locking(path)
        if locked(file) and is_at(file, path):
            break
        file.close()
        time.sleep(0.05)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _put(path: Path, content: bytes) -> None:
    with _temporary(path) as part:
        _write(part, content)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name beside `path`, whose file takes its place at the end, durably; removed if anything goes wrong."""
    part = path.with_name(f"{path.name}.tmp-{secrets.token_hex(6)}")
    try:
        yield part
        os.replace(part, path)
        _sync(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _write(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Makes a rename in a folder durable, where the system can."""
    if (flags := getattr(os, "O_DIRECTORY", None)) is None:
        return
    number = os.open(folder, os.O_RDONLY | flags)
    try:
        os.fsync(number)
    except OSError:  # some network file systems do not sync folders
        pass
    finally:
        os.close(number)


@contextmanager
def _said(directory: Path) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except (OSError, pa.ArrowException) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise StoreError(f"{printable(str(directory))} cannot be written to: {said}") from error
