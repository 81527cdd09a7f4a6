"""What an audit is asked for, checked, and turned into an engine and its methods."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from xai_fast._printing import printable
from xai_fast.core.targets import class_named
from xai_fast.engine import Decisions, Engine
from xai_fast.engine.settings import Mode
from xai_fast.methods.base import AbstractMethod
from xai_fast.methods.build import build, method_named, refuse_without_truth
from xai_fast.models import load

Executor = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is wanted; see `audit`. `settings` are those of methods that are given by name, `weights` the model's."""

    model: Any
    data: Any
    methods: tuple[str | AbstractMethod, ...]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    weights: str | None = None
    target: int | str | None = None
    preprocess: Callable[[Any], Tensor] | None = None
    classes: Sequence[str] | None = None
    mode: Mode = "exact"
    batch_size: int | Literal["auto"] = "auto"
    shard_size: int | None = None
    time_out: float = 30.0
    tune: bool = False
    noisy: float = 0.0

    @property
    def repeatable(self) -> dict[str, Any] | None:
        """As JSON, where everything was named; None where an object was given, which only its owner can make again."""
        named = isinstance(self.model, str) and isinstance(self.data, str | Path) and self.preprocess is None
        if not named or self.classes is not None or not all(isinstance(one, str) for one in self.methods):
            return None
        plain = ("mode", "batch_size", "shard_size", "time_out", "noisy")
        names = ("model", "methods", "settings", "weights", "target", *plain)
        data = str(self.data) if "://" in str(self.data) else os.path.abspath(self.data)
        return {name: getattr(self, name) for name in names} | {"data": data}


def check_folder(out: Path) -> None:
    """Refuses what is no folder of a file system: a run needs locks and renames.

    Raises:
        ValueError: it is a URL.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(out)):
        raise ValueError(
            f"`out` {printable(str(out))} is a URL, and a run needs the locks and renames of a file system; give a "
            "folder on a disk or a mount, and copy it when it is complete"
        )


def check(
    order: Order,
    shard: tuple[int, int],
    workers: int | None,
    executor: Executor = "local",
    actors: int | None = None,
) -> None:
    """Refuses numbers and names that do not fit.

    Raises:
        ValueError: says which.
    """
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"`shard` came as {index}/{count}; give i/n with i from 0 to n - 1")
    for name, value in (("shard_size", order.shard_size), ("workers", workers), ("actors", actors)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` came as {value}; give at least 1")
    _refuse_numbers(order)
    if executor not in get_args(Executor):
        raise ValueError(f"`executor` came as {executor!r}; give one of {', '.join(map(repr, get_args(Executor)))}")
    if actors is not None and executor == "local":
        raise ValueError("`actors` is about Ray; give `executor` 'ray' too")
    if not order.methods:
        raise ValueError("`methods` came empty; give at least one, such as 'GradCAM'")


def _refuse_numbers(order: Order) -> None:
    if not order.time_out > 0:
        raise ValueError(f"`time_out` came as {order.time_out}; give seconds above 0")
    if not 0 <= order.noisy <= 1:
        raise ValueError(f"`noisy` came as {order.noisy}; give a share of the images, from 0 to 1")


def made(order: Order, entries: Any) -> tuple[Engine, dict[str, AbstractMethod]]:
    """The engine of the run, and its methods by their labels.

    Args:
        order: what is wanted.
        entries: of the decisions of a frozen plan; None where there is none yet.

    Raises:
        ValueError, TypeError: they do not fit.
    """
    model = load(order.model, weights=order.weights).model if isinstance(order.model, str) else order.model
    given = Engine.of(model)
    decisions = None if order.tune and entries is None else Decisions(entries or {})
    engine = Engine(
        given.model,
        mode=order.mode,
        batch_size=order.batch_size,
        output=given.settings.output,
        args=given.settings.args,
        kwargs=given.settings.kwargs,
        preprocess=order.preprocess or given.preprocess,
        classes=order.classes or given.classes,
        frozen=True,
        prepare=True,
        decisions=decisions,
    )
    if engine.preprocess is None:
        raise ValueError(
            "`preprocess` is not known for this model, so a photograph cannot become its input; give a callable from a "
            "PIL image to a tensor (C, H, W), such as xf.Preprocess(resize=256, crop=224)"
        )
    names: Counter[str] = Counter()
    methods: dict[str, AbstractMethod] = {}
    for one in order.methods:
        if isinstance(one, AbstractMethod) and one.engine.model is not given.model:
            raise ValueError(f"`methods` holds a {type(one).__name__} made for another model; make it for this one")
        if isinstance(one, str):
            info = method_named(one)
            method = build(info.name, engine, order.settings.get(info.name))
        else:
            method = one
        name = type(method).__name__
        names[name] += 1
        methods[name if names[name] == 1 else f"{name}-{names[name]}"] = method
    return engine, methods


def target_of(order: Order, engine: Engine) -> int | str | None:
    """A class index, "label", or None.

    Raises:
        ValueError: no such class, or a method must be told the true one.
    """
    if order.target != "label" or (engine.classes is not None and "label" in engine.classes):
        if order.target is None:
            refuse_without_truth((one for one in order.methods if isinstance(one, str)), "target")
        return order.target if not isinstance(order.target, str) else class_named(order.target, engine.classes)
    return order.target
