"""A run as a project of ViRelAy: pictures, maps and, per class, a spectral embedding with clusters, in HDF5.

Layout after ViRelAy's documentation of its databases and project files (0.6). Needs `pip install 'xai_fast[virelay]'`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xai_fast.audit.reading import AuditRun

from .items import Item, chosen_method, items

_SIDE = 16  # to which maps are reduced before they are compared
_CLUSTERS = (2, 4, 8)
_DIMENSIONS = 8
_LEAST, _MOST = 6, 2000  # images of a class: fewer have no embedding, and no more are embedded
_INPUTS, _MAPS, _ANALYSIS, _LABELS = "inputs.h5", "attributions.h5", "analysis.h5", "labels.json"


def write_virelay(run: AuditRun, folder: Path, method: str | None = None, limit: int | None = None) -> int:
    """Writes the project; open it with `virelay FOLDER/project.yaml`.

    ViRelAy wants maps of the pictures' size, so they are resized, as overlays are. An image without a known label has
    the explained class in its place. Of the model's answers the records hold two probabilities, that of the prediction
    and that of the label; the others are 0 here. Categories are the explained classes; their clusters are k-means of a
    spectral embedding of the maps, of the first 2000 images of each.

    Args:
        run: whose data are where they were.
        folder: a new one, or an empty one.
        method: whose maps; None for the first.
        limit: images at most; each takes about 7 bytes per pixel.

    Returns:
        How many were written.

    Raises:
        ValueError: an unknown method; the folder holds something; pictures of several sizes; h5py is missing; or the
            photographs cannot be found or cut again.
    """
    h5py, method = _h5py(), chosen_method(run, method)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"the folder {folder} is not empty; give a new one")
    folder.mkdir(parents=True, exist_ok=True)
    reduced: list[NDArray[np.float32]] = []
    targets: list[int] = []
    known = run.classes
    count = max(len(known), _classes_in(run))
    with h5py.File(folder / _INPUTS, "w") as inputs, h5py.File(folder / _MAPS, "w") as maps:
        for number, item in enumerate(items(run, method, limit)):
            if number == 0:
                _lay_out(inputs, maps, item, count)
            if item.pixels.shape[:2] != inputs["data"].shape[2:]:
                raise ValueError(
                    "pictures of several sizes; ViRelAy takes one, as a preprocessing with a crop makes it"
                )
            _append(inputs, maps, item)
            reduced.append(_resized(item.map, (_SIDE, _SIDE)))
            targets.append(int(item.row["target"]))
    if reduced:
        with h5py.File(folder / _ANALYSIS, "w") as analysis:
            _analyse(analysis, np.stack(reduced), np.array(targets))
    _describe(folder, run, method, [known[n] if n < len(known) else f"class {n}" for n in range(count)], bool(reduced))
    return len(reduced)


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise ValueError(f"projects of ViRelAy need h5py ({error}); pip install 'xai_fast[virelay]'") from None


def _classes_in(run: AuditRun) -> int:
    """One more than the largest class in the records."""
    table = run.table(["label", "target", "prediction"])
    return 1 + max(
        (number for column in table.columns for number in column.to_pylist() if number is not None), default=0
    )


def _lay_out(inputs: Any, maps: Any, item: Item, classes: int) -> None:
    size = item.pixels.shape[:2]
    columns = [
        (inputs, "data", (3, *size), "uint8"),
        (inputs, "label", (), "uint16"),
        (maps, "index", (), "uint32"),
        (maps, "attribution", (1, *size), "float32"),
        (maps, "label", (), "uint16"),
        (maps, "prediction", (classes,), "float32"),
    ]
    for file, name, shape, dtype in columns:
        file.create_dataset(name, (0, *shape), dtype, maxshape=(None, *shape))


def _append(inputs: Any, maps: Any, item: Item) -> None:
    number, row = len(inputs["label"]), item.row
    label = row["target"] if row["label"] is None else row["label"]
    answers = np.zeros(maps["prediction"].shape[1], np.float32)
    for index, probability in ((row["label"], row["label_probability"]), (row["prediction"], row["probability"])):
        if index is not None and probability is not None:
            answers[index] = probability
    values = _resized(item.map, item.pixels.shape[:2])[None]
    written = {
        inputs["data"]: item.pixels.transpose(2, 0, 1),
        inputs["label"]: label,
        maps["index"]: number,
        maps["attribution"]: values,
        maps["label"]: label,
        maps["prediction"]: answers,
    }
    for dataset, value in written.items():
        dataset.resize(number + 1, axis=0)
        dataset[number] = value


def _resized(values: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _analyse(analysis: Any, maps: NDArray[np.float32], targets: NDArray[np.integer]) -> None:
    for index in np.unique(targets).tolist():
        rows = np.flatnonzero(targets == index)[:_MOST]
        if len(rows) < _LEAST:
            continue
        values, vectors = _embedding(maps[rows].reshape(len(rows), -1))
        category = analysis.create_group(f"{index:05d}")
        category["index"] = rows.astype(np.uint32)
        embedding = category.create_group("embedding")
        embedding["spectral"] = vectors.astype(np.float32)
        embedding["spectral"].attrs["eigenvalue"] = values.astype(np.float32)
        clusters = category.create_group("cluster")
        for name, groups in _clusters(vectors):
            clusters[name] = groups.astype(np.uint32)
            clusters[name].attrs["embedding"] = "spectral"


def _embedding(features: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues and eigenvectors (n, d) of the neighbours' graph, the smallest first, without the constant one."""
    from scipy.linalg import eigh
    from sklearn.neighbors import kneighbors_graph

    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    graph = kneighbors_graph(features / np.where(lengths > 0, lengths, 1), min(10, len(features) - 1)).toarray()
    graph = np.maximum(graph, graph.T)
    root = 1 / np.sqrt(graph.sum(1))
    laplacian = np.eye(len(features)) - root[:, None] * graph * root
    values, vectors = eigh(laplacian, subset_by_index=(1, min(_DIMENSIONS, len(features) - 1)))
    return values, vectors


def _clusters(vectors: NDArray[np.float64]) -> Iterator[tuple[str, NDArray[np.integer]]]:
    from sklearn.cluster import KMeans

    made: Any = KMeans  # whose stub knows one way to say how often it starts
    for count in _CLUSTERS:
        if count < len(vectors):
            yield f"kmeans-{count:02d}", made(count, n_init=5, random_state=0).fit_predict(vectors)


def _describe(folder: Path, run: AuditRun, method: str, classes: list[str], analysed: bool) -> None:
    """The label map, and the project as JSON, which every reader of YAML takes."""
    labels = [{"index": n, "word_net_id": f"{n:05d}", "name": name} for n, name in enumerate(classes)]
    (folder / _LABELS).write_text(json.dumps(labels), encoding="utf-8")
    order = run.plan.about.get("order") or {}
    project: dict[str, Any] = {
        "name": run.directory.name,
        "model": str(order.get("model") or "a model given from Python"),
        "label_map": _LABELS,
        "dataset": {"name": run.directory.name, "type": "hdf5", "path": _INPUTS},
        "attributions": {"attribution_method": method, "attribution_strategy": "predicted_label", "sources": [_MAPS]},
    }
    if analysed:
        project["analyses"] = [{"analysis_method": "Spectral embedding of maps", "sources": [_ANALYSIS]}]
    (folder / "project.yaml").write_text(json.dumps({"project": project}, indent=2), encoding="utf-8")
