"""Attributions inside other people's `ray.data` pipelines: a class for `map_batches`, columns in and columns out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from torch import Tensor

from xai_fast.engine.settings import Mode
from xai_fast.images.preprocess import Preprocess
from xai_fast.methods.base import AbstractMethod

from .answers import Answer
from .asking import MOST_ROWS, asked, failed
from .attribution import EngineAttributor
from .columns import array_of, columns_of
from .decoding.measuring import measured
from .decoding.pool import DECODE_ERROR, Decoded, Decoders, Request
from .example import noise_of
from .order import Order, check, made, target_of
from .plan import maps_of
from .store.schema import schema_of

_OURS = ("id", "uri", "label", "label_name")  # columns of an audit that say what the dataset says itself


class AttributionUDF:
    """Adds what an audit knows of an image to the rows of a dataset: maps as bytes with a scale, sums, predictions.

    As in `ds.map_batches(AttributionUDF, fn_constructor_kwargs={"model": "demo"}, batch_format="pyarrow",
    batch_size=64, compute=ray.data.ActorPoolStrategy(size=1), num_gpus=1)`. The columns are those of an audit's shards,
    of the same types in every batch; the column of images is let go. A row whose image cannot be read or explained says
    so in `status` and `error`. A row's numbers depend, by rounding, on how many rows share its batch.

    Args:
        model: as of `xf.audit`.
        methods: likewise.
        image: the column of images: encoded bytes, {"bytes": ...}, or uint8 arrays (h, w), (h, w, 3) as
            `ray.data.read_images` gives.
        id: a column of whole numbers, which key random draws; None: every row is 0.
        label: a column of class indices or names; None where there is none.
        prefix: before the names of the new columns, where the dataset has some of them.
        target: as of `xf.audit`; likewise those that follow.
        preprocess: likewise.
        classes: likewise.
        mode: likewise.
        batch_size: likewise.
        time_out: seconds that decoding one image may take.

    Raises:
        ValueError, TypeError: wrong usage.
    """

    def __init__(
        self,
        model: Any,
        methods: str | AbstractMethod | Sequence[str | AbstractMethod] = "GradCAM",
        *,
        image: str = "image",
        id: str | None = None,
        label: str | None = None,
        prefix: str = "",
        target: int | str | None = None,
        preprocess: Callable[[Any], Tensor] | None = None,
        classes: Sequence[str] | None = None,
        mode: Mode = "exact",
        batch_size: int | str = "auto",
        time_out: float = 30.0,
    ) -> None:
        several = (methods,) if isinstance(methods, str | AbstractMethod) else tuple(methods)
        fixed: dict[str, Any] = {"mode": mode, "batch_size": batch_size, "time_out": time_out}
        order = Order(
            model=model, data=None, methods=several, target=target, preprocess=preprocess, classes=classes, **fixed
        )
        check(order, (0, 1), None)
        self._image, self._id, self._label, self._prefix = image, id, label, prefix
        engine, found = made(order, {})
        self._classes = {name: n for n, name in enumerate(engine.classes or ())}
        self._preprocess = engine.preprocess
        settings = vars(self._preprocess) if isinstance(self._preprocess, Preprocess) else None
        fixed_size = isinstance(self._preprocess, Preprocess) and self._preprocess.crop is not None
        self._attributor = EngineAttributor(
            engine, found, {}, target_of(order, engine), noise_of(self._preprocess), fixed_size=fixed_size
        )
        described = self._attributor.described()
        self._per_call = int(described["images_per_call"])
        self._maps = maps_of(described["methods"])
        self._new = [field for field in schema_of(self._maps, described["embedding"], {}) if field.name not in _OURS]
        self._decoders = Decoders(settings, workers=1, ahead=2 * self._per_call, time_out=time_out)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The batch with the new columns, without its images."""
        self._check(batch)
        labels = [None] * len(batch) if self._label is None else [self._class(v) for v in _values(batch, self._label)]
        ids = [0] * len(batch) if self._id is None else [int(value) for value in _values(batch, self._id)]
        found, answers = self._found(_values(batch, self._image)), []
        for start in range(0, len(found), self._per_call):
            part = slice(start, start + self._per_call)
            answers += self._answers(found[part], ids[part], labels[part])
        columns = columns_of(found, answers, labels, [one.label for one in self._maps])
        kept = batch.drop_columns([self._image])
        for field in self._new:
            kept = kept.append_column(self._prefix + field.name, array_of(columns[field.name], field.type))
        return kept

    def _check(self, batch: Any) -> None:
        """Refuses what is no table with these columns, or has ours already."""
        if not isinstance(batch, pa.Table):
            raise TypeError(f"`batch` came as {type(batch).__name__}; give map_batches `batch_format='pyarrow'`")
        for name in filter(None, (self._image, self._id, self._label)):
            if name not in batch.column_names:
                raise ValueError(f"the dataset has no column {name!r}, but {', '.join(batch.column_names)}")
        for name in (self._prefix + field.name for field in self._new):
            if name in batch.column_names and name != self._image:
                raise ValueError(f"the dataset has a column {name!r} already; give `prefix`, such as 'xai.'")

    def _answers(
        self, found: Sequence[Decoded], ids: Sequence[int], labels: Sequence[int | None], halvings: int = 0
    ) -> list[Answer]:
        """Answers, of halves of the images with half as many rows at once where memory runs out."""
        try:
            return asked(self._attributor, found, ids, labels, halvings)
        except MemoryError as error:
            if halvings == MOST_ROWS.bit_length():
                return [failed(error)] * len(found)
        half = max(1, len(found) // 2)
        parts = [slice(0, half), slice(half, None)] if len(found) > 1 else [slice(None)]
        return [
            answer for part in parts for answer in self._answers(found[part], ids[part], labels[part], halvings + 1)
        ]

    def _found(self, images: Sequence[Any]) -> list[Decoded]:
        """What is decoded, in other processes, and what came as arrays, in order."""
        encoded = {n: image for n, image in enumerate(map(_encoded, images)) if image is not None}
        requests = [Request(0, n, lambda content=content: content) for n, content in encoded.items()]
        decoded = {one.position: one for one in self._decoders.stream(requests)}
        return [decoded[n] if n in decoded else self._seen(n, image) for n, image in enumerate(images)]

    def _seen(self, number: int, image: Any) -> Decoded:
        """An image that came as an array."""
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or not _is_picture(image.shape):
            came = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            said = f"came as {came}; give encoded bytes, or uint8 (h, w) or (h, w, 3)"
            return Decoded(0, number, status=DECODE_ERROR, error=said)
        photo = Image.fromarray(image.squeeze(-1) if image.shape[2:] == (1,) else image)
        view = self._preprocess.view(photo) if isinstance(self._preprocess, Preprocess) else photo
        found, looks = measured(view)
        return Decoded(0, number, np.asarray(view), photo.size, tuple(found), looks=looks)

    def _class(self, value: Any) -> int | None:
        """A class index, of an index or a name."""
        if isinstance(value, str):
            return self._classes.get(value, int(value) if value.isdecimal() else None)
        return None if value is None else int(value)


def _encoded(image: Any) -> bytes | None:
    """Bytes of a file; None where the image is something else."""
    content = image.get("bytes") if isinstance(image, dict) else image
    return bytes(content) if isinstance(content, bytes | bytearray | memoryview) else None


def _is_picture(shape: tuple[int, ...]) -> bool:
    return 0 not in shape and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)))


def _values(batch: pa.Table, name: str) -> list[Any]:
    """A column as a list; tensors, as Arrow or Ray keeps them, as arrays."""
    column = batch.column(name)
    if not isinstance(column.type, pa.BaseExtensionType):
        return column.to_pylist()
    found = []
    for chunk in column.chunks:
        arrays = chunk.to_numpy_ndarray() if isinstance(chunk, pa.FixedShapeTensorArray) else chunk.to_numpy()
        found += list(arrays)
    return found
