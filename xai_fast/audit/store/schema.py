"""What the columns of a shard are: one row per image, in the order of the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from .maps import COMPARED, SUMMARIES

OK = "ok"
PROPERTIES = ("brightness", "contrast", "red", "green", "blue", "sharpness")
"""Of the picture that the model sees, colours from 0 to 1; sharpness is the deviation of the Laplacian."""
LOOKS = ("darkest", "brightest", "colour", "entropy")
"""Of the same picture: the 5 % and the 99 % quantile of its brightness, the 99 % quantile of the distance between the
strongest and the weakest channel, and bits per pixel by the histogram of its brightness."""
CODES = ("content", "signs", "steps")
"""64 bits each by which the same picture is known again: a hash of every pixel; and signs of slow waves and of steps
from left to right, few of which differ where a picture was made smaller, brighter, or compressed."""


@dataclass(frozen=True)
class Map:
    """A method's maps in the store.

    Attributes:
        label: of the method in this run, which its columns start with.
        shape: (h, w) where every image has a map of that shape, else None.
    """

    label: str
    shape: tuple[int, int] | None


def schema_of(
    maps: tuple[Map, ...],
    embedding: int | None,
    metadata: Mapping[str, Any],
    *,
    noise: bool = False,
    masks: bool = False,
    looks: bool = True,
) -> pa.Schema:
    """The columns.

    Args:
        maps: one per method.
        embedding: its length; None where there is none.
        metadata: further columns of the manifest with their Arrow types.
        noise: whether some images are explained once more on a noisy copy: what the model predicts there, and per
            method `change` and `rank` (see `store.maps.compared`).
        masks: whether some images have a mask: `mask_area`, its share of the picture that the model sees, `mask_error`,
            and per method `mask`, the share of each cell of the map that it covers, in 255ths.
        looks: whether there are `LOOKS` and `CODES`; runs that were begun before have none.
    """
    fields = [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("label", pa.int32()),
        pa.field("label_name", pa.string()),
        pa.field("target", pa.int32()),
        pa.field("prediction", pa.int32()),
        pa.field("probability", pa.float32()),
        pa.field("margin", pa.float32()),
        pa.field("label_probability", pa.float32()),
        *(pa.field(name, pa.float32()) for name in PROPERTIES),
    ]
    if looks:
        fields += [pa.field(name, pa.float32()) for name in LOOKS] + [pa.field(name, pa.int64()) for name in CODES]
    if embedding is not None:
        fields.append(pa.field("embedding", pa.list_(pa.float32())))
    if noise:
        fields.append(pa.field("noisy_prediction", pa.int32()))
    if masks:
        fields += [pa.field("mask_area", pa.float32()), pa.field("mask_error", pa.string())]
    for one in maps:
        size = -1 if one.shape is None else one.shape[0] * one.shape[1]
        fields += [
            pa.field(f"{one.label}.heatmap", pa.binary(size)),
            pa.field(f"{one.label}.height", pa.int32()),
            pa.field(f"{one.label}.width", pa.int32()),
            pa.field(f"{one.label}.scale", pa.float32()),
            pa.field(f"{one.label}.zero", pa.float32()),
            pa.field(f"{one.label}.evaluations", pa.int64()),
            *(pa.field(f"{one.label}.{name}", pa.float32()) for name in SUMMARIES),
            *(pa.field(f"{one.label}.{name}", pa.float32()) for name in COMPARED if noise),
            *([pa.field(f"{one.label}.mask", pa.binary(size))] if masks else []),
        ]
    fields += [pa.field(name, kind) for name, kind in metadata.items()]
    return pa.schema(fields)
