"""Settings that several methods have, refused where they fit no input: counts, deviations, seeds, references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from xai_fast.core.plain import plain
from xai_fast.images.baselines import check_baseline


def check_count(value: object, name: str, least: int = 1) -> None:
    """Refuses what is no number of things.

    Raises:
        TypeError: not an int.
        ValueError: below the least.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"`{name}` came as {value!r}; give a whole number, at least {least}")
    if value < least:
        raise ValueError(f"`{name}` came as {value}; give at least {least}")


def check_sigma(noise: object) -> None:
    """Refuses what is no standard deviation."""
    if isinstance(noise, bool) or not isinstance(noise, int | float):
        raise TypeError(f"`noise` came as {noise!r}; give a number, at least 0")
    if not 0 <= noise < float("inf"):
        raise ValueError(f"`noise` came as {noise}; give a finite number, at least 0")


def check_seed(seed: object) -> None:
    """Refuses what is no seed."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"`seed` came as {seed!r}; give a whole number")
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"`seed` came as {seed}; give one from 0 to 2**64 - 1")


def check_baselines(baselines: Any) -> None:
    """Refuses what fits no input."""
    if isinstance(baselines, Tensor):
        if not baselines.is_floating_point():
            raise TypeError(f"`baselines` came as {baselines.dtype}; give floating inputs (R, C, *S)")
        plain("baselines", baselines)
        return
    check_baseline(baselines)


def check_tolerance(tolerance: object, otherwise: str = "") -> None:
    """Refuses what is no share to stop at; `otherwise` says what else would fit."""
    fits = f"a number above 0 and below 1{otherwise}"
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float):
        raise TypeError(f"`tolerance` came as {tolerance!r}; give {fits}")
    if not 0 < tolerance < 1:
        raise ValueError(f"`tolerance` came as {tolerance}; give {fits}")


def check_choice(value: object, name: str, options: Sequence[str]) -> None:
    """Refuses what is none of the words."""
    if value not in options:
        raise ValueError(f"`{name}` came as {value!r}; give one of {', '.join(map(repr, options))}")


def check_positive(value: object, name: str, *, zero: bool = False) -> None:
    """Refuses what is no finite number above 0, or at least 0 where `zero`."""
    fits = "a finite number, at least 0" if zero else "a finite number above 0"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"`{name}` came as {value!r}; give {fits}")
    if not (value >= 0 if zero else value > 0) or value == float("inf"):
        raise ValueError(f"`{name}` came as {value}; give {fits}")
