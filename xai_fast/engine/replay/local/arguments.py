"""The arguments of a call by name, where all but its input are constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from xai_fast.graph.steps import Step, values_in

from .rule import Scene


def taken(step: Step, scene: Scene, names: Sequence[str], defaults: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments after the first by name, constants filled in; None where one depends on the input or is not known.

    Args:
        step: a call of a function or method.
        scene: what is constant.
        names: in order of position, the input's first.
        defaults: of what need not be given.
    """
    if len(step.args) > len(names) or set(step.kwargs) - set(names):
        return None
    given = {**dict(zip(names, step.args, strict=False)), **step.kwargs}
    rest = {name: scene.constant(given[name]) for name in names[1:] if name in given}
    if values_in(rest):
        return None
    found = {**defaults, **rest}
    return found if set(names[1:]) <= set(found) else None


def per_axis(value: Any, axes: int) -> tuple[int, ...]:
    """A number, or one per axis, as one per axis."""
    if isinstance(value, Sequence | Tensor):
        values = tuple(int(v) for v in value)
        return values * axes if len(values) == 1 else values
    return (int(value),) * axes
