"""`--set window=15 --set Occlusion.window=15`: from text to the settings of each method."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from xai_fast.methods.build import method_named, settings_of


def settings_for(names: Sequence[str], pairs: Sequence[str], layer: str | None) -> dict[str, dict[str, Any]]:
    """The settings of every chosen method, by its registered name.

    A pair without a method's name goes to each chosen method that has such a setting. `layer` is a setting like others.

    Raises:
        ValueError: an unknown method, a pair that is none, or a setting that no chosen method has.
    """
    infos = {info.name: info for info in map(method_named, names)}
    settings: dict[str, dict[str, Any]] = {name: {} for name in infos}
    given: dict[tuple[str, str, bool], str] = {}
    for pair in [*([f"layer={layer}"] if layer is not None else []), *pairs]:
        key, equals, text = pair.partition("=")
        method, dot, setting = key.strip().rpartition(".")
        if not equals or not setting:
            raise ValueError(f"`--set` came as {pair!r}; give NAME=VALUE or METHOD.NAME=VALUE, such as window=15")
        if dot and method_named(method).name not in infos:
            raise ValueError(f"`--set` {pair!r} is for {method}, which is not among the methods {', '.join(infos)}")
        chosen = [method_named(method).name] if dot else list(infos)
        takers = [name for name in chosen if setting in settings_of(infos[name])]
        if not takers:
            known = "; ".join(f"{name} has {', '.join(settings_of(infos[name]))}" for name in chosen)
            raise ValueError(f"`--set` {pair!r}: no chosen method has a setting {setting!r}; {known}")
        for name in takers:
            if given.setdefault((name, setting, bool(dot)), text.strip()) != text.strip():
                raise ValueError(f"`--set` {pair!r}: {name}.{setting} was given before, as another value; give it once")
            if dot or (name, setting, True) not in given:  # what names the method counts more
                settings[name][setting] = _value(text.strip())
    return settings


def _value(text: str) -> Any:
    """A Python literal where it is one (15, 0.5, (3, 15, 15), True, None); the text itself otherwise."""
    spelled = {"true": True, "false": False, "none": None}
    if text.lower() in spelled:
        return spelled[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text
