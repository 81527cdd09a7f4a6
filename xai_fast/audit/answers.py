"""What an audit asks of a model for each image, and the contract of whoever answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .decoding.pool import Decoded

MODEL_ERROR, NOT_FINITE = "model_error", "nan"


@dataclass
class Answer:
    """What is known of one image.

    Attributes:
        outputs: (K,) class scores; None where the model has none.
        target: the class that the maps explain; None where that is something else.
        embedding: (D,) what the model makes of it before its last layer.
        maps: (h, w) per method's label.
        evaluations: model rows used, per method's label.
        noisy_prediction: the class of a noisy copy; None where none was asked about.
        noisy_maps: (h, w) of that copy per method's label, for the class that `maps` explain.
        status: "ok", or what went wrong.
        error: the same in words.
    """

    outputs: NDArray[np.float32] | None = None
    target: int | None = None
    embedding: NDArray[np.float32] | None = None
    maps: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    evaluations: dict[str, int] = field(default_factory=dict)
    noisy_prediction: int | None = None
    noisy_maps: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    status: str = "ok"
    error: str | None = None


class Attributor(Protocol):
    """Answers about batches of images, the same bytes for the same batch in every process."""

    def described(self) -> Mapping[str, Any]:
        """Everything about it that could change a byte, as JSON.

        `methods` (each with `label` and `map`, its maps' (h, w) or None), `embedding` (its length or None), `labels`
        (from the names of labels to class indices), `images_per_call`.
        """
        ...

    @property
    def preprocess(self) -> dict[str, Any] | None:
        """Settings of the `xf.Preprocess` that decoders apply; None where they leave photographs whole."""
        ...

    def input_of(self, photo: Decoded) -> Any:
        """The model's input (C, H, W) for a photograph that was decoded; something with a `shape`."""
        ...

    def __call__(
        self, inputs: Sequence[Any], ids: Sequence[int], labels: Sequence[int | None], halvings: int = 0
    ) -> list[Answer]:
        """One answer per input, all of which have one shape.

        Args:
            inputs: of `input_of`.
            ids: of the images, which key random draws.
            labels: their classes, where they are known.
            halvings: how often the model rows that run together are halved.

        Raises:
            MemoryError: memory ran out; fewer inputs or rows may fit.
        """
        ...
