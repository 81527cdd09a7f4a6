"""The columns that answers about images become: what the model predicts, and its maps as bytes beside their sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .answers import Answer
from .decoding.pool import Decoded
from .store.maps import COMPARED, SUMMARIES, compared, coverage, quantised, summaries
from .store.schema import CODES, LOOKS, PROPERTIES


def columns_of(
    found: Sequence[Decoded], answers: Sequence[Answer], labels: Sequence[int | None], maps: Sequence[str]
) -> dict[str, list[Any]]:
    """The columns of `store.schema` that depend on an image and its answer alone.

    Args:
        found: the images.
        answers: about them.
        labels: class indices, where they are known.
        maps: labels of methods.
    """
    columns: dict[str, list[Any]] = {
        "status": [answer.status for answer in answers],
        "error": [answer.error for answer in answers],
        "width": [one.size and one.size[0] for one in found],
        "height": [one.size and one.size[1] for one in found],
        "label": list(labels),
        "target": [answer.target for answer in answers],
        "embedding": [answer.embedding for answer in answers],
        **_predictions(answers, labels),
    }
    for place, name in enumerate(PROPERTIES):
        columns[name] = [one.properties and one.properties[place] for one in found]
    for name in (*LOOKS, *CODES):
        columns[name] = [one.looks and one.looks[name] for one in found]
    for label in maps:
        columns |= _map_columns(label, answers)
    return columns


def noise_columns(answers: Sequence[Answer], maps: Sequence[str]) -> dict[str, list[Any]]:
    """The columns that compare maps with those of noisy copies; null where no copy was asked about."""
    columns: dict[str, list[Any]] = {"noisy_prediction": [answer.noisy_prediction for answer in answers]}
    for label in maps:
        columns |= {f"{label}.{name}": [None] * len(answers) for name in COMPARED}
        for place, answer in enumerate(answers):
            if label in answer.noisy_maps:
                found = compared(answer.maps[label][None], answer.noisy_maps[label][None])
                for name, (number,) in found.items():
                    columns[f"{label}.{name}"][place] = number
    return columns


def mask_columns(found: Sequence[Decoded], answers: Sequence[Answer], maps: Sequence[str]) -> dict[str, list[Any]]:
    """The columns of masks: of the picture, and on the grid of each method's maps."""
    covers = [None if one.mask is None else one.mask.astype(np.float64) / 255 for one in found]
    columns: dict[str, list[Any]] = {
        "mask_area": [None if cover is None else float(cover.mean()) for cover in covers],
        "mask_error": [one.mask_error for one in found],
    }
    for label in maps:
        shapes = [None if label not in answer.maps else answer.maps[label].shape for answer in answers]
        columns[f"{label}.mask"] = [
            None if cover is None or shape is None else _in_255ths(coverage(cover, shape))
            for cover, shape in zip(covers, shapes, strict=True)
        ]
    return columns


def _in_255ths(cover: NDArray[np.float64]) -> bytes:
    return np.rint(255 * cover.clip(0, 1)).astype(np.uint8).tobytes()


def array_of(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """A column; what is not a number is null, so that what reads it needs to know one kind of nothing."""
    if pa.types.is_floating(kind):
        values = [None if value is None or np.isnan(value) else value for value in values]
    return pa.array(values, kind)


def _predictions(answers: Sequence[Answer], labels: Sequence[int | None]) -> dict[str, list[Any]]:
    """What the model predicts: the likeliest class, its probability, its score's distance to the next, the label's."""
    names = ("prediction", "probability", "margin", "label_probability")
    rows = [_prediction(answer.outputs, label) for answer, label in zip(answers, labels, strict=True)]
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def _prediction(outputs: NDArray[np.float32] | None, label: int | None) -> tuple[Any, ...]:
    if outputs is None or not np.isfinite(outputs).all():
        return None, None, None, None
    scores = outputs.astype(np.float64)
    if len(scores) == 1:  # one logit tells two classes apart
        scores = np.array([0.0, scores[0]])
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    best, second = np.argsort(-scores, kind="stable")[:2]
    of_label = shares[label] if label is not None and label < len(shares) else None
    return int(best), shares[best], scores[best] - scores[second], of_label


def _map_columns(label: str, answers: Sequence[Answer]) -> Mapping[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        f"{label}.{name}": [None] * len(answers)
        for name in ("heatmap", "height", "width", "scale", "zero", "evaluations", *SUMMARIES)
    }
    alike: dict[tuple[int, ...], list[int]] = {}
    for place, answer in enumerate(answers):
        columns[f"{label}.evaluations"][place] = answer.evaluations.get(label)
        if (found := answer.maps.get(label)) is not None:
            alike.setdefault(found.shape, []).append(place)
    for shape, places in alike.items():
        maps = np.stack([answers[place].maps[label] for place in places])
        kept, numbers = quantised(maps), summaries(maps)
        for row, place in enumerate(places):
            columns[f"{label}.heatmap"][place] = kept.levels[row].tobytes()
            columns[f"{label}.height"][place], columns[f"{label}.width"][place] = shape
            columns[f"{label}.scale"][place], columns[f"{label}.zero"][place] = kept.scale[row], kept.zero[row]
            for name, found in numbers.items():
                columns[f"{label}.{name}"][place] = found[row]
    return columns
