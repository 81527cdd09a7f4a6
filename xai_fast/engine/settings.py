"""What the user chose: how an engine answers, checked once and never changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from xai_fast.core.scores import checked_output

from .decisions import Decisions, checked_decisions
from .devices import checked_devices

Mode = Literal["exact", "fast", "turbo"]
Plan = Literal["auto", "dense", "local", "tail"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments of `Engine` that say how it answers; see there for what each of them means.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
    """

    mode: Mode = "exact"
    plan: Plan = "auto"
    batch_size: int | Literal["auto"] = "auto"
    memory_limit: int | None = None
    compile: bool | Literal["auto"] = "auto"
    deterministic: bool = False
    progress: bool | Callable[[int, int], Any] = False
    output: Callable[[Any], Tensor] | None = None
    frozen: bool = False
    decisions: Decisions | None = None
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] | None = None
    prepare: bool | Literal["auto"] = "auto"
    devices: Sequence[str | torch.device] | None = None

    def __post_init__(self) -> None:
        _one_of("mode", self.mode, get_args(Mode))
        _one_of("plan", self.plan, get_args(Plan))
        _one_of("compile", self.compile, ("auto", True, False))
        _one_of("frozen", self.frozen, (True, False))
        _one_of("prepare", self.prepare, ("auto", True))
        if self.batch_size != "auto" and not _positive(self.batch_size):
            raise ValueError(f'`batch_size` came as {self.batch_size!r}; give "auto" or a number of rows, at least 1')
        if self.memory_limit is not None and not _positive(self.memory_limit):
            raise ValueError(f"`memory_limit` came as {self.memory_limit!r}; give a number of bytes, or None")
        checked_output(self.output)
        checked_decisions(self.decisions)
        checked_devices(self.devices)

    @property
    def rows(self) -> int | None:
        """The rows per forward that the user wants; None where they are to be found."""
        return None if self.batch_size == "auto" else int(self.batch_size)

    @property
    def points(self) -> int:
        """How many points of one row's path run together."""
        if self.memory_limit is not None:
            return 1
        return min(8, self.rows or 8)


def _one_of(name: str, value: object, fits: Sequence[object]) -> None:
    if not any(value is option or (isinstance(value, str) and value == option) for option in fits):
        raise ValueError(f"`{name}` came as {value!r}; give one of {', '.join(map(repr, fits))}")


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
