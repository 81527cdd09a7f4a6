"""Findings in the folder of a run, as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xai_fast._printing import printable
from xai_fast.report import write_atomically

from .clusters import Group
from .cues import cue_from
from .finding import Change, Confirmation, Finding

FINDINGS = "findings.json"
_FORMAT = 1


@dataclass(frozen=True)
class Findings:
    """What `check` found, the gravest first.

    Attributes:
        found: the findings.
        method: whose maps were looked at.
        images: that were explained.
        failed: that were not.
        complete: whether the run was whole.
        skipped: checks that had nothing to look at, by name, and why.
        groups: into which classes fall by their maps and embeddings.
    """

    found: tuple[Finding, ...]
    method: str
    images: int
    failed: int
    complete: bool
    skipped: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, place: int) -> Finding:
        return self.found[place]

    def __repr__(self) -> str:
        lines = [f"<Findings: {len(self)} in {self.images:,} images>"]
        lines += [f"  {one.severity}: {one.title} ({one.confirmation.state})" for one in self.found]
        lines += [f"  {name} was not checked: {why}" for name, why in self.skipped.items()]
        return printable("\n".join(lines).replace("\n", "\0")).replace("\\x00", "\n")

    def save(self, directory: Path) -> None:
        """Writes `findings.json`, whole or not at all."""
        content = {
            "format": _FORMAT,
            "method": self.method,
            "images": self.images,
            "failed": self.failed,
            "complete": self.complete,
            "skipped": dict(self.skipped),
            "groups": [dataclasses.asdict(one) for one in self.groups],
            "found": [_as_json(one) for one in self.found],
        }
        text = json.dumps(content, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
        write_atomically(directory / FINDINGS, lambda file: file.write(text.encode()))


def findings_of(directory: str | Path) -> Findings:
    """Those that `check` kept in the folder of a run.

    Raises:
        ValueError: there are none, or they are of another version.
    """
    path = Path(directory) / FINDINGS
    try:
        content = json.loads(path.read_bytes())
    except OSError:
        raise ValueError(f"{printable(str(path))} is not there; call `xf.audit.check` first") from None
    except ValueError as error:
        raise ValueError(f"{printable(str(path))} cannot be read ({error}); check the run again") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{printable(str(path))} is of another version; check the run again")
    found = tuple(_finding(one) for one in content["found"])
    facts = {name: content[name] for name in ("method", "images", "failed", "complete")}
    groups = tuple(_group(one) for one in content.get("groups", ()))
    return Findings(found, **facts, skipped=content.get("skipped", {}), groups=groups)


def _group(content: dict[str, Any]) -> Group:
    known = None if content["labels"] is None else tuple(content["labels"])
    return Group(
        **{**content, "labels": known, "grid": tuple(content["grid"]), "positions": tuple(content["positions"])}
    )


def _as_json(finding: Finding) -> dict[str, Any]:
    kept = {field.name: getattr(finding, field.name) for field in dataclasses.fields(finding)}
    kept.pop("rivals")  # of which none is left by then
    cue = None if finding.cue is None else finding.cue.described()
    return kept | {"cue": cue, "confirmation": dataclasses.asdict(finding.confirmation)}


def _finding(content: dict[str, Any]) -> Finding:
    told = content["confirmation"]
    changes = tuple(Change(**one) for one in told["changes"])
    return Finding(
        **{
            **content,
            "positions": tuple(content["positions"]),
            "scores": tuple(content["scores"]),
            "cue": cue_from(content["cue"]),
            "confirmation": Confirmation(told["state"], changes, told["note"]),
        }
    )
