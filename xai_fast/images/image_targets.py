"""What is explained of each of several photographs, when they are explained one by one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xai_fast.core.objective import Objective, takes_sample
from xai_fast.core.output_targets import OutputTarget
from xai_fast.core.targets import ScoreTarget, Target, class_named


def target_of_each(target: Any, count: int, classes: Sequence[str] | None) -> list[Target]:
    """The target of each of `count` photographs, as a method takes it for that photograph alone.

    Args:
        target: one target for all of them, or a sequence with one per photograph. A class may be given by name, several
            classes of one photograph as a sequence. What `xf.targets` make is divided where it holds one entry per
            input, and a callable that takes the input's index gets the photograph's.
        count: of photographs.
        classes: names of the model's outputs.

    Raises:
        TypeError, ValueError: there are more or fewer targets than photographs, or one of them is no target.
    """
    each = [_for_one(one, classes) for one in _divided(target, count)]
    for one in each:
        Objective(one, 1)
    return each


def _divided(target: Any, count: int) -> list[Any]:
    """One target per photograph, as the caller wrote it."""
    if isinstance(target, ScoreTarget):
        parts = [_part(entry, count, target.name) for entry in target.classes]
        return [dataclasses.replace(target, classes=tuple(part[n] for part in parts)) for n in range(count)]
    if isinstance(target, OutputTarget):
        return [_given(target, n, count) for n in range(count)]
    if callable(target) and not isinstance(target, Tensor):
        return [_of_image(target, n) for n in range(count)] if takes_sample(target) else [target] * count
    if isinstance(target, Mapping):
        raise TypeError(
            "`target` came as a mapping; give one target for all images, or a sequence with one per image, in order"
        )
    if isinstance(target, str) or not isinstance(target, Iterable) or getattr(target, "ndim", 1) == 0:
        return [target] * count
    each = list(target)
    if len(each) != count:
        raise ValueError(f"`target` holds {len(each)} and `images` {count}; give one per image, or one for all")
    return each


def _for_one(target: Any, classes: Sequence[str] | None) -> Target:
    """A target as a method takes it for one input; several classes as (1, K)."""
    if isinstance(target, str):
        return class_named(target, classes)
    if isinstance(target, Tensor):
        return target[None] if target.ndim else target
    if isinstance(target, np.ndarray):
        target = target.tolist()
    if isinstance(target, list | tuple):
        if not target:
            raise ValueError("`target` holds an empty sequence; give each image one class or several")
        indices = [class_named(one, classes) if isinstance(one, str) else one for one in target]
        Objective(indices, len(indices))  # refuses what are no class indices
        return torch.tensor([[int(index) for index in indices]])
    return target


def _part(entry: Any, count: int, name: str) -> list[Any]:
    """An entry of a formula of scores, for each photograph."""
    if entry is None or isinstance(entry, int) or getattr(entry, "ndim", 1) == 0 or not hasattr(entry, "__len__"):
        return [entry] * count
    if len(entry) != count:
        raise ValueError(f"`target` {name} holds {len(entry)} and `images` {count}; give one per image, or one for all")
    return [int(value) for value in entry]


def _given(target: OutputTarget, n: int, count: int) -> OutputTarget:
    lengths = {len(values) for values in target.given.values()} - {1}
    if lengths - {count}:
        raise ValueError(
            f"`target` {target.name} holds {max(lengths)} and `images` {count}; give one per image, or one for all"
        )
    given = {name: values if len(values) == 1 else values[n : n + 1] for name, values in target.given.items()}
    return dataclasses.replace(target, given=given)


def _of_image(target: Callable[..., Any], n: int) -> Callable[..., Tensor]:
    """The target with the photograph's own index, where a call on it alone would say 0."""

    @functools.wraps(target, assigned=())
    def shifted(output: Any, sample: Tensor) -> Tensor:
        return target(output, sample + n)

    shifted.__name__ = getattr(target, "__name__", None) or repr(target)
    return shifted
