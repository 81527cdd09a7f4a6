"""lime's neighbourhood of an image: its draws, and the images that they make, written by one look-up each.

lime compares the label map with every hidden segment, for every sample. A classifier function is called as lime calls
it: with arrays (rows, H, W, 3) of the image's own type, `batch_size` at a time, in order. A torch module or an
`xf.Engine` in its place gets (rows, 3, H, W), its class scores are taken as they are (lime expects probabilities), and
rows are as many at a time as the engine likes; images of bytes need the engine's `preprocess`. For a torch module that
is seen in a classifier function the engine answers, too.

Not covered: images and label maps of other kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from xai_fast.compat.calls import Call, CallersError, Uncovered
from xai_fast.compat.held import answering, may_answer

_ROWS = 64  # that one question to the engine holds
_QUIRK = "as lime, segments are hidden by the number of their column, and these are not numbered 0, 1, 2, ..."


def data_labels(call: Call) -> Any:
    """Lime's table of draws, and what the classifier says to the image of each."""
    image, fudged, segments = call["image"], call["fudged_image"], call["segments"]
    samples, classifier, rows = call["num_samples"], call["classifier_fn"], call["batch_size"]
    _refuse(image, fudged, segments, samples, rows)
    names = np.unique(segments)
    asks = _engine_scores(classifier, image)
    if asks is None and not callable(classifier):
        raise Uncovered("the classifier is no function")
    # From here on nothing may be left to lime, whose draws and the caller's classifier would come twice.
    data = call.explainer.random_state.randint(0, 2, samples * len(names)).reshape((samples, len(names)))
    data[0, :] = 1
    if not np.array_equal(names, np.arange(len(names))):
        call.note = _QUIRK
    at_once = _ROWS if asks is not None else rows
    ask: Callable[..., Any] = classifier if asks is None else asks
    labels: list[Any] = []
    try:
        with answering(classifier) if asks is None and may_answer(classifier) else nullcontext():
            for images in _images(data, image, fudged, segments, at_once):
                labels.extend(ask(images))
        return data, np.array(labels)
    except Exception as error:  # whatever the caller's classifier raises stays the caller's
        raise CallersError from error


def _images(
    data: NDArray[Any], image: NDArray[Any], fudged: NDArray[Any], segments: NDArray[Any], at_once: int
) -> Iterator[NDArray[Any]]:
    """Batches (rows, H, W, 3), each a new array, of the image with the segments of its row's zeros hidden."""
    lowest, count = min(int(segments.min()), 0), data.shape[1]
    shown = np.ones(max(int(segments.max()) + 1, count) - lowest, dtype=bool)
    write = (_of_bytes if image.dtype == np.uint8 else _of_pixels)(image, fudged, segments - lowest)
    for start in range(0, len(data), at_once):
        some = data[start : start + at_once]
        images = np.empty((len(some), *image.shape), image.dtype)
        for row, out in zip(some, images, strict=True):
            shown[-lowest : count - lowest] = row
            write(shown, out)
        yield images


_Write = Callable[[NDArray[np.bool_], NDArray[Any]], None]  # of an image, from which segments are shown


def _of_pixels(image: NDArray[Any], fudged: NDArray[Any], places: NDArray[Any]) -> _Write:
    """A pixel at a time and not a number at a time, which saves a fifth (two cores of a Zen 3)."""
    pixel = np.dtype((np.void, image.dtype.itemsize * image.shape[2]))
    clean, hidden = (np.ascontiguousarray(one).view(pixel)[..., 0] for one in (image, fudged))

    def write(shown: NDArray[np.bool_], out: NDArray[Any]) -> None:
        np.copyto(out.view(pixel)[..., 0], np.where(shown[places], clean, hidden))

    return write


def _of_bytes(image: NDArray[Any], fudged: NDArray[Any], places: NDArray[Any]) -> _Write:
    """Bytes are hidden by masks of bits, in vector registers: two and a half times as fast as pixel by pixel."""
    each = np.repeat(places.ravel(), image.shape[2]).astype(np.intp)
    hidden = fudged.ravel()
    differing = image.ravel() ^ hidden

    def write(shown: NDArray[np.bool_], out: NDArray[Any]) -> None:
        flat = out.reshape(-1)
        np.take(shown.astype(np.uint8) * np.uint8(255), each, out=flat, mode="clip")
        flat &= differing
        flat ^= hidden

    return write


def _refuse(image: Any, fudged: Any, segments: Any, samples: Any, rows: Any) -> None:
    if not all(type(one) is np.ndarray for one in (image, fudged, segments)):
        raise Uncovered("an image or a label map that is no array")
    if image.ndim != 3 or fudged.shape != image.shape or fudged.dtype != image.dtype:
        raise Uncovered("an image that is not (H, W, C)")
    if segments.shape != image.shape[:2] or segments.dtype.kind not in "iu" or not segments.size:
        raise Uncovered("a label map that is not (H, W) of whole numbers")
    if type(samples) is not int or type(rows) is not int or samples < 1 or rows < 1:
        raise Uncovered("`num_samples` or `batch_size` that is no number")


def _engine_scores(classifier: Any, image: NDArray[Any]) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
    """From images to class scores by the engine; None where the classifier is a function.

    Raises:
        CallersError: images of bytes, and nothing is known of how the model takes them.
    """
    from xai_fast.engine import Engine  # heavy; what is passed on does without
    from xai_fast.engine.responses import class_scores

    if not isinstance(classifier, nn.Module | Engine):
        return None
    engine = Engine.of(classifier)
    preprocess = engine.preprocess
    if image.dtype.kind != "f" and preprocess is None:
        raise CallersError from ValueError(
            f"`classifier_fn` is a model, and how it takes images of {image.dtype} is not known; give "
            "`xf.Engine(model, preprocess=...)`, or an image in the model's own space"
        )

    def inputs(images: NDArray[Any]) -> Tensor:
        if image.dtype.kind == "f":
            like = next((p for p in getattr(engine.model, "parameters", tuple)()), torch.empty(0))
            return torch.from_numpy(images).permute(0, 3, 1, 2).to(like.device, like.dtype)
        assert preprocess is not None
        return torch.stack([preprocess(Image.fromarray(one)) for one in images])

    def scores(images: NDArray[Any]) -> NDArray[Any]:
        return class_scores(engine, inputs(images)).cpu().numpy()

    return scores
