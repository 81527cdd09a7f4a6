"""Answers about a batch of images: those of one shape together, and what fails costs itself alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xai_fast._printing import reason

from .answers import MODEL_ERROR, Answer, Attributor
from .decoding.pool import Decoded

MOST_ROWS = 256
"""Model rows that an engine runs together by itself, at most."""


def asked(
    attributor: Attributor,
    found: Sequence[Decoded],
    ids: Sequence[int],
    labels: Sequence[int | None],
    halvings: int = 0,
) -> list[Answer]:
    """One answer per image, in order.

    Args:
        attributor: answers.
        found: the images; those that could not be decoded are not asked about.
        ids: of the images.
        labels: their classes, where they are known.
        halvings: see `Attributor`.

    Raises:
        MemoryError: memory ran out; nothing is answered.
    """
    answers = [Answer(status=one.status, error=one.error) for one in found]
    inputs: dict[int, Any] = {}
    alike: dict[tuple[int, ...], list[int]] = {}
    for place, one in enumerate(found):
        if one.pixels is None:
            continue
        try:
            inputs[place] = attributor.input_of(one)
            alike.setdefault(tuple(inputs[place].shape), []).append(place)
        except (Exception, SystemExit) as error:
            answers[place] = failed(error)
    for places in alike.values():
        some = [(inputs[place], ids[place], labels[place]) for place in places]
        for place, answer in zip(places, _together(attributor, some, halvings), strict=True):
            answers[place] = answer
    return answers


def failed(error: BaseException) -> Answer:
    """The answer about an image that the model could not take."""
    return Answer(status=MODEL_ERROR, error=f"{type(error).__name__}: {reason(error)}")


def _together(attributor: Attributor, some: Sequence[tuple[Any, int, int | None]], halvings: int) -> list[Answer]:
    """Where a batch fails, each of its images alone: one that the model cannot take costs itself."""
    inputs, ids, labels = zip(*some, strict=True)
    try:
        return attributor(inputs, ids, labels, halvings)
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        if len(some) == 1:
            return [failed(error)]
    return [answer for one in some for answer in _together(attributor, [one], halvings)]
