"""What the checks and the report of a large audit cost: seconds, memory, bytes of the site, and how fast it opens.

usage: python benchmarks/audit_checks.py [--rows N...] [--classes K] [--json FILE]

The rows are made up and written as an audit writes them: GradCAM maps of 7 x 7, embeddings, predictions, noisy copies
of a tenth of the images, masks, a column of metadata, codes by which pictures are known again. Each number of rows is
checked in a fresh process (no model, so that nothing is confirmed: that costs the same whatever their number), and
drawn in another one, with 240 photographs that stand for all. Planted are: a class that looks at a corner in half of
its images, 2 % exchanged labels, a class whose maps noise changes, a class that looks beside its masks, a site at
which one class is wrong half of the time, 1 % of pictures that are there a second time, a few bits of their codes
apart. `found` says which of these the checks report. The page is opened in headless Chromium, from disk, and is there
when its load event has ended, which is after its script has filled the table; the time is the median of five.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from methods import save
from PIL import Image
from timing import peak, timed

from xai_fast.audit.checks import checking
from xai_fast.audit.checks.records import records_of
from xai_fast.audit.checks.storing import findings_of
from xai_fast.audit.checks.thresholds import DEFAULT
from xai_fast.audit.plan import Plan, shard_size_for
from xai_fast.audit.reading import AuditRun, read
from xai_fast.audit.site.writing import report
from xai_fast.audit.sources.choose import source_of
from xai_fast.audit.store.maps import COMPARED, quantised, summaries
from xai_fast.audit.store.schema import PROPERTIES
from xai_fast.audit.store.shards import Shards
from xai_fast.models.demo import photographs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "audit"))

APART = 25_000  # rows up to which each check is timed alone as well
PHOTOGRAPHS, SIDE, EMBEDDING, OPENINGS = 240, 7, 512, 5
PREPROCESS = {
    "resize": 112,
    "crop": 112,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bilinear",
}


def write(folder: Path, rows: int, classes: int) -> None:
    """A run of so many rows, with its photographs."""
    table = _data(folder, rows, classes)
    manifest = source_of(table).manifest()
    names = [f"class {n}" for n in range(classes)]
    attribution = {
        "methods": [{"label": "GradCAM", "map": [SIDE, SIDE], "signed": False}],
        "embedding": EMBEDDING,
        "labels": {name: n for n, name in enumerate(names)},
        "images_per_call": 32,
        "preprocess": PREPROCESS,
        "noise": {"share": 0.1, "scale": 0.02},
        "masks": True,
    }
    metadata = {name: str(kind) for name, kind in manifest.metadata.items()}
    facts = {"sha256": manifest.sha256(), "images": rows, "metadata": metadata}
    fixed = {"manifest": facts, "shard_size": shard_size_for(rows, 1), "attribution": attribution, "decisions": {}}
    fixed["decoding"] = {"looks": True}
    plan = Plan(fixed, {"classes": names})
    plan.freeze(folder / "run", manifest.to_bytes())
    shards = Shards(folder / "run", plan.fingerprint, plan.sizes)
    shards.prepare()
    schema = plan.schema_with(manifest.metadata)
    centres = np.random.default_rng(1).standard_normal((classes, EMBEDDING)).astype(np.float32)
    for index in range(len(plan.sizes)):
        start, stop = plan.span(index)
        columns = _columns(np.arange(start, stop), classes, centres) | {
            "id": list(range(start, stop)),
            "uri": manifest.table.column("uri").slice(start, stop - start).to_pylist(),
            "label_name": manifest.table.column("label").slice(start, stop - start).to_pylist(),
            **{name: manifest.table.column(name).slice(start, stop - start).to_pylist() for name in manifest.metadata},
        }
        arrays = [pa.array(columns[field.name], field.type, from_pandas=True) for field in schema]
        shards.write(index, pa.Table.from_arrays(arrays, schema=schema), {"seconds": 0.0, "model_seconds": 0.0})


def _data(folder: Path, rows: int, classes: int) -> Path:
    """Photographs, and a table that names them over and over."""
    draws, found = np.random.default_rng(0), photographs()
    for n in range(PHOTOGRAPHS):
        photo = Image.fromarray(np.asarray(found[n % len(found)])).convert("RGB")
        left, top = (int(draws.integers(0, extent - 112)) for extent in photo.size)
        path = folder / "photographs" / f"{n:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.crop((left, top, left + 112, top + 112)).save(path, quality=85)
    truth = _truth(np.arange(rows), classes)
    site = np.where(truth["north"], "north", "south")
    lines = ["path,label,mask,site"]
    lines += [
        f"photographs/{n % PHOTOGRAPHS:04d}.jpg,class {truth['label'][n]},mask.png,{site[n]}" for n in range(rows)
    ]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


def _truth(rows: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """What each row is, by its number alone."""
    draws = np.random.default_rng(7).random((int(rows.max()) + 1, 6))[rows]
    true = rows % classes
    flipped = draws[:, 0] < 0.02
    north = draws[:, 1] < 0.3
    wrong = (draws[:, 2] < 0.05) | ((true == 4 % classes) & north & (draws[:, 3] < 0.5))
    return {
        "true": true,
        "label": np.where(flipped, (true + 1 + rows // classes % (classes - 1)) % classes, true),
        "flipped": flipped,
        "north": north,
        "prediction": np.where(wrong, (true + 1) % classes, true),
        "stamped": (true == 1) & (draws[:, 4] < 0.5),
        "noisy": draws[:, 5] < 0.1,
    }


def _columns(rows: np.ndarray, classes: int, centres: np.ndarray) -> dict[str, Any]:
    draws, count, truth = np.random.default_rng([11, int(rows[0])]), len(rows), _truth(rows, classes)
    y, x = np.mgrid[:SIDE, :SIDE]
    middle = draws.uniform(1, SIDE - 1, (count, 2, 1, 1))
    maps = np.exp(-((y - middle[:, 0]) ** 2 + (x - middle[:, 1]) ** 2) / 4).astype(np.float32)
    maps[truth["stamped"], -2:, -2:] += 3
    kept = quantised(maps)
    spread = maps / maps.sum((1, 2), keepdims=True)
    cover = (spread > np.quantile(spread, 0.7, axis=(1, 2))[:, None, None]).astype(np.float64)
    beside = truth["true"] == 3 % classes
    cover[beside] = np.roll(cover[beside], SIDE // 2, (1, 2))
    embedding = centres[truth["true"]] + 0.8 * draws.standard_normal((count, EMBEDDING)).astype(np.float32)
    sure = draws.uniform(0.7, 0.99, count)
    right = truth["prediction"] == truth["label"]
    change = np.where(truth["true"] == 2 % classes, draws.uniform(0.4, 1.4, count), draws.uniform(0, 0.3, count))
    change[~truth["noisy"]] = np.nan
    return {
        "status": ["ok"] * count,
        "error": [None] * count,
        "width": [112] * count,
        "height": [112] * count,
        "label": truth["label"],
        "target": truth["prediction"],
        "prediction": truth["prediction"],
        "probability": sure,
        "margin": np.full(count, 2.0),
        "label_probability": np.where(right, sure, (1 - sure) / classes),
        **{name: _again(draws.normal(0.5, 0.1, count), rows) for name in PROPERTIES},
        **{name: draws.uniform(0.1, 0.9, count) for name in ("darkest", "brightest", "colour")},
        "entropy": draws.uniform(4, 8, count),
        **_codes(rows),
        "embedding": list(embedding),
        "noisy_prediction": np.where(truth["noisy"], truth["prediction"], np.nan),
        "mask_area": cover.mean((1, 2)),
        "mask_error": [None] * count,
        "GradCAM.heatmap": [one.tobytes() for one in kept.levels],
        "GradCAM.height": [SIDE] * count,
        "GradCAM.width": [SIDE] * count,
        "GradCAM.scale": kept.scale,
        "GradCAM.zero": kept.zero,
        "GradCAM.evaluations": [1] * count,
        "GradCAM.mask": [np.rint(255 * one).astype(np.uint8).tobytes() for one in cover],
        **{f"GradCAM.{name}": values for name, values in summaries(maps).items()},
        **{f"GradCAM.{name}": values for name, values in zip(COMPARED, (change, 1 - change / 2), strict=True)},
    }


def _again(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """With one row in a hundred that is the last's."""
    places = np.flatnonzero(rows % 100 == 99)
    values[places] = values[places - 1]
    return values


def _codes(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Signs of smooth fields, whose bits go together as those of photographs do; one row in a hundred is the last's."""
    found: dict[str, np.ndarray] = {"content": rows.astype(np.int64)}
    y, x = np.mgrid[:8, :8] * np.pi / 8
    for place, name in enumerate(("signs", "steps")):
        of = np.where(rows % 100 == 99, rows - 1, rows)
        bits = np.empty((len(rows), 64), bool)
        for n, row in enumerate(of.tolist()):
            draws = np.random.default_rng([17 + place, row])
            weights, noise = draws.standard_normal(8), draws.standard_normal((8, 8))
            waves = sum(w * np.cos(a * y + b * x) for w, (a, b) in zip(weights, np.ndindex(2, 4), strict=True))
            bits[n] = (waves + noise > 0).ravel()
        bits[rows % 100 == 99, :3] ^= True
        found[name] = np.packbits(bits, axis=1).view(">i8")[:, 0].astype(np.int64)
    return found


def checked(folder: Path) -> dict[str, Any]:
    """What reading the records and each check took in this process, and what was found."""
    run, bare = read(folder / "run"), peak()
    seconds = _apart(run) if sum(run.plan.sizes) <= APART else {}
    whole = timed(lambda: checking.check(run, confirm=False))
    found = _found(findings_of(run.directory))
    return {"seconds": {**seconds, "whole": whole}, "peak_bytes": peak(), "bare_bytes": bare, "found": found}


def _apart(run: AuditRun) -> dict[str, float]:
    """Seconds of reading and of each check."""
    began = time.perf_counter()
    records = records_of(run)
    seconds = {"reading": time.perf_counter() - began}
    for module in checking.CHECKS:
        seconds[module.NAME] = timed(lambda module=module: module.check(records, DEFAULT))
    return seconds


def _found(findings: Any) -> dict[str, bool]:
    titles = [f"{one.check}: {one.title}" for one in findings]

    def said(*words: str) -> bool:
        return any(all(word in title for word in words) for title in titles)

    return {
        "corner": said("shortcut: class 1: ", "bottom right corner"),
        "labels": said("mislabelled: "),
        "noise": said("unstable: class 2: "),
        "masks": said("overlap: class 3: "),
        "site": said("errors: class 4 with site = north"),
        "duplicates": said("duplicates: ", "more than once") or said("duplicates: ", "several labels"),
        "findings": len(titles),
    }


def drawn(folder: Path) -> dict[str, Any]:
    """What the site took in this process, and how large it is."""
    run = read(folder / "run")
    seconds = timed(lambda: report(run, data=folder / "labels.csv", out=folder / "site"))
    files = [path for path in (folder / "site").rglob("*") if path.is_file()]
    return {
        "report_seconds": seconds,
        "report_peak_bytes": peak(),
        "site_bytes": sum(path.stat().st_size for path in files),
        "site_files": len(files),
    }


def opened(page: Path) -> list[float]:
    """Seconds from asking for the page until its load event has ended, and its table is filled."""
    from browser import browser

    seconds = []
    with browser(port=9527) as real:
        for _ in range(OPENINGS):
            real.open(page)
            (timing,) = real.run("performance.getEntriesByType('navigation').map(e => e.loadEventEnd - e.startTime)")
            assert real.run("document.querySelectorAll('#rows tbody tr').length") == 100
            seconds.append(timing / 1000)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[25_000, 50_000, 100_000])
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.here:
        what, folder = chosen.here
        return print(json.dumps({"checked": checked, "drawn": drawn}[what](Path(folder))))
    records = []
    for rows in chosen.rows:
        with tempfile.TemporaryDirectory() as name:
            write(Path(name), rows, chosen.classes)
            record: dict[str, Any] = {"checks": "GradCAM", "rows": rows, "classes": chosen.classes}
            for what in ("checked", "drawn"):
                command = [sys.executable, __file__, "--here", what, name]
                found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
                record |= json.loads(found.splitlines()[-1])
            record["open_seconds"] = statistics.median(opened(Path(name) / "site" / "index.html"))
        records.append(record)
        print(
            f"{rows:7,d} rows: checks {record['seconds']['whole']:6.1f} s, peak {record['peak_bytes'] / 2**20:.0f} MiB "
            f"({record['bare_bytes'] / 2**20:.0f} before); site {record['site_bytes'] / 1e6:.1f} MB in "
            f"{record['report_seconds']:.1f} s, peak {record['report_peak_bytes'] / 2**20:.0f} MiB; opens in "
            f"{record['open_seconds']:.2f} s; found {record['found']}"
        )
    if chosen.json:
        save(chosen.json, 1, records)
    return None


if __name__ == "__main__":
    main()
