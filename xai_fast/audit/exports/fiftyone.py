"""A run as a data set that FiftyOne imports: pictures, labels, predictions and maps, tied together by JSON.

The layout is FiftyOne's own JSON format without a version (`samples.json`, `metadata.json`, `fields/`), which its
importer for `fiftyone.types.FiftyOneDataset` takes in any release, so that neither FiftyOne nor its database is needed
to write it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xai_fast.audit.reading import AuditRun

from .items import Item, chosen_method, is_signed, items


def write_fiftyone(run: AuditRun, folder: Path, method: str | None = None, limit: int | None = None) -> int:
    """Writes the data set; open it with `fiftyone.Dataset.from_dir(folder, fiftyone.types.FiftyOneDataset)`.

    A sample is the part of a photograph that the model saw, its label ("ground_truth") and what the model says
    ("prediction" with its probability), and the map as a heatmap of 8 bits: from 0 to the map's largest value, or,
    where maps have a sign, from minus to plus its largest magnitude with 0 in the middle. Negative values of maps
    without a sign are 0.

    Args:
        run: whose data are where they were.
        folder: a new one, or an empty one.
        method: whose maps; None for the first.
        limit: samples at most.

    Returns:
        How many were written.

    Raises:
        ValueError: an unknown method; the folder holds something; or the photographs cannot be found or cut again.
    """
    method = chosen_method(run, method)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"the folder {folder} is not empty; give a new one")
    field, signed = _field(method), is_signed(run, method)
    pictures, maps = folder / "data", folder / "fields" / field
    for part in (pictures, maps):
        part.mkdir(parents=True, exist_ok=True)
    classes, samples = run.classes, list[dict[str, Any]]()
    for item in items(run, method, limit):
        name = f"{item.position:08d}.png"
        Image.fromarray(item.pixels).save(pictures / name)
        Image.fromarray(_levels(item.map, signed=signed)).save(maps / name)
        samples.append(_sample(item, classes, name, field))
    info = {"method": method, "signed": signed}
    (folder / "metadata.json").write_text(json.dumps({"media_type": "image", "info": info}), encoding="utf-8")
    (folder / "samples.json").write_text(json.dumps({"samples": samples}), encoding="utf-8")
    return len(samples)


def _sample(item: Item, classes: tuple[str, ...], name: str, field: str) -> dict[str, Any]:
    row = item.row
    sample: dict[str, Any] = {
        "filepath": f"data/{name}",
        "tags": [],
        "metadata": None,
        "source": row["uri"],
        field: {"_cls": "Heatmap", "map_path": f"fields/{field}/{name}", "range": [0, 255]},
    }
    if row.get("label_name") is not None or row["label"] is not None:
        truth = row.get("label_name") or _class(row["label"], classes)
        sample["ground_truth"] = {"_cls": "Classification", "label": truth}
    if row["prediction"] is not None:
        said = {"label": _class(row["prediction"], classes), "confidence": row["probability"]}
        sample["prediction"] = {"_cls": "Classification", **said}
    return sample


def _class(index: int, classes: tuple[str, ...]) -> str:
    return classes[index] if 0 <= index < len(classes) else f"class {index}"


def _levels(values: NDArray[np.float32], *, signed: bool) -> NDArray[np.uint8]:
    if signed:
        largest = float(np.abs(values).max(initial=0.0)) or 1.0
        return np.round(127.5 + 127.5 * values / largest).astype(np.uint8)
    largest = float(values.max(initial=0.0)) or 1.0
    return np.round(255 * np.clip(values, 0, None) / largest).astype(np.uint8)


def _field(method: str) -> str:
    """The method as a name of a field, which holds letters, digits and underscores."""
    name = "".join(c if c.isalnum() and c.isascii() else "_" for c in method)
    return name if name[:1].isalpha() else f"map_{name}"
