"""What an audit makes of faults that were planted, and of networks without one.

usage: python benchmarks/planted.py --keep FOLDER [--seeds A B] [--kind NAME] [--json FILE]

Every network is first shown to use its cue: how often the cue alone makes crops of other classes the class, and how
often marked crops are lost without it. Then the first finding should name the class and what was planted, and be
confirmed; AUROC is of its images' scores against the planted ones, within the class. Seeds below 1000 are for
development: nothing that was settled on them is counted on them. `FOLDER` keeps sets, weights and runs, so that a
second look costs less; `--kind clean` counts false alarms, and `--kind "clean, with masks and noisy copies"` those of
all checks.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import save
from planted_data import CAMERAS, Audited, audited, kinds, predictions
from sklearn.metrics import roc_auc_score

from xai_fast.audit.checks.checking import check
from xai_fast.audit.checks.finding import Finding
from xai_fast.models.demo import CLASSES


def judged(found: Audited) -> dict[str, Any]:
    """What the audit says of one set."""
    made, kind = found.made, found.made.kind
    began = time.perf_counter()
    findings = list(check(found.run, **found.given))
    seconds = time.perf_counter() - began
    alarms = [one for one in findings if one.confirmation.state == "confirmed" or one.severity != "low"]
    first = findings[0] if findings else None
    right = (predictions(found.model, made.pictures) == made.true).float().mean()
    record: dict[str, Any] = {
        "class": CLASSES[made.index],
        "accuracy": float(right),
        "flips": {"insert": found.flips[0], "remove": found.flips[1]},
        "findings": len(findings),
        "confirmed": sum(one.confirmation.state == "confirmed" for one in findings),
        "above_low": sum(one.severity != "low" for one in findings),
        "said": [f"{one.severity}: {one.title} ({one.confirmation.state})" for one in alarms],
        "seconds": found.seconds + seconds,
    }
    if kind.check:
        record["named_first"] = bool(first and names(first, found))
        record["confirmed_first"] = bool(first and names(first, found) and first.confirmation.state == "confirmed")
        place = next((n for n, one in enumerate(findings) if names(one, found)), None)
        record["place"] = place
        record["auroc"] = None if place is None else auroc(findings[place], found)
    if kind.flipped:
        record["precision_at_k"] = precision(findings, found)
    return record


def names(finding: Finding, found: Audited) -> bool:
    """Whether a finding says what was planted: its class, and the corner, the property or the camera."""
    made, kind = found.made, found.made.kind
    if finding.class_index != made.index or finding.check != kind.check:
        return False
    evidence = finding.evidence
    if kind.check == "shortcut":
        place = f"{made.corner} corner" if kind.flipped else "one corner or another"
        return evidence["region"] == place
    if kind.check == "metadata":
        return (evidence["column"], evidence["value"]) == ("camera", CAMERAS[0])
    return evidence["property"] in ("red cast", "blue cast")


def auroc(finding: Finding, found: Audited) -> float:
    """How well a finding's scores tell the marked pictures of the class from its others; 0 for those not listed."""
    scores = np.full(len(found.made.marked), -np.inf)
    scores[list(finding.positions)] = finding.scores
    least = scores[np.isfinite(scores)].min(initial=0.0)
    own = (found.made.true == found.made.index).numpy()
    return float(roc_auc_score(found.made.marked[own], np.where(np.isfinite(scores), scores, least - 1)[own]))


def precision(findings: list[Finding], found: Audited) -> float:
    """Share of exchanged labels among the first k that are said to be wrong, of k that are."""
    exchanged = (found.made.label != found.made.true).numpy()
    count = int(exchanged.sum())
    said = next((one for one in findings if one.check == "mislabelled"), None)
    return 0.0 if said is None else float(exchanged[list(said.positions[:count])].sum() / count)


def summary(name: str, audits: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of one kind."""
    record: dict[str, Any] = {
        "planted": name,
        "networks": len(audits),
        "with_confirmed": sum(one["confirmed"] > 0 for one in audits),
        "above_low": sum(one["above_low"] > 0 for one in audits),
    }
    if "named_first" in audits[0]:
        areas = [one["auroc"] for one in audits if one["auroc"] is not None]
        record["named_first"] = sum(one["named_first"] for one in audits)
        record["confirmed_first"] = sum(one["confirmed_first"] for one in audits)
        record["found"] = len(areas)
        record["least_auroc"] = min(areas, default=None)
        record["flips"] = {
            edit: float(np.median([one["flips"][edit] for one in audits])) for edit in ("insert", "remove")
        }
    if "precision_at_k" in audits[0]:
        record["least_precision_at_k"] = min(one["precision_at_k"] for one in audits)
    return record | {"audits": audits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, required=True, help="folder of sets, weights and runs")
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 2), help="from, and up to but not including")
    parser.add_argument("--kind", action="append", help="only these; by default all")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for seed in range(*chosen.seeds):
        for kind in kinds(seed):
            if chosen.kind and kind.name not in chosen.kind:
                continue
            found = audited(kind, seed, chosen.keep / f"{seed}-{kind.name.replace(' ', '-')}")
            record = {"seed": seed, **judged(found)}
            by_kind.setdefault(kind.name, []).append(record)
            print(kind.name, json.dumps(record, indent=1), flush=True)
    records = [summary(name, audits) for name, audits in by_kind.items()]
    for record in records:
        print({name: value for name, value in record.items() if name != "audits"})
    if chosen.json:
        save(chosen.json, 1, records)


if __name__ == "__main__":
    main()
