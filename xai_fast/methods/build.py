"""A method from its name and a table of settings, as text interfaces give them."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from .base import AbstractMethod
from .registry import MethodInfo, methods


def method_named(name: str) -> MethodInfo:
    """The registered method of that name (case aside).

    Raises:
        ValueError: there is none; close ones are listed.
    """
    known = methods()
    for registered, info in known.items():
        if registered.lower() == name.lower():
            return info
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or list(known)
    raise ValueError(f"`method` {name!r} is not known; close are {', '.join(close)} (`xai-fast methods` lists all)")


def refuse_other_kinds(info: MethodInfo) -> None:
    """Refuses what text interfaces cannot show over a photograph.

    Raises:
        ValueError: the method attributes no score to an input.
    """
    if not info.attributes:
        raise ValueError(
            f"`method` {info.name} does not attribute a prediction to a photograph (it gives {info.kind}); "
            f"use it from Python: xf.{info.name}(model, ...)"
        )


def refuse_without_truth(names: Iterable[str], argument: str) -> None:
    """Refuses methods that start from the true class, where no target was given.

    Args:
        names: of methods.
        argument: by which the target would have been given.

    Raises:
        ValueError: one of them must be told the true class.
    """
    for name in names:
        if (info := method_named(name)).asks_truth:
            raise ValueError(
                f"`{argument}` is missing, and {info.name} must be told the true class; give its name or index"
            )


def settings_of(info: MethodInfo) -> tuple[str, ...]:
    """Names of a method's settings, in the order of its signature."""
    return tuple(field.name for field in dataclasses.fields(info.cls) if field.kw_only and field.init)


def build(name: str, model: Any, settings: Mapping[str, Any] | None = None) -> AbstractMethod:
    """The method with these settings over its starting ones.

    Raises:
        ValueError: an unknown method or setting; one that attributes no score to an input; or a setting that the
            method refuses.
        TypeError: likewise.
    """
    info = method_named(name)
    refuse_other_kinds(info)
    unknown = sorted(set(settings or ()) - set(settings_of(info)))
    if unknown:
        fits = ", ".join(settings_of(info))
        raise ValueError(f"`{unknown[0]}` is no setting of {info.name}; it has {fits}")
    return info.cls(model, **{**info.starting, **(settings or {})})
