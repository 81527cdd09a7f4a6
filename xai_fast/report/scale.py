"""The scale of a map: which value gets which colour, said once and printed beside every picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Limits closer together than this share of their size hold rounding noise around a constant: not stretched.
_FLAT = 1e-5
# A percentile below this share of the largest value means that nearly all of the map is empty.
_SPARSE = 1e-3
EMPTY = "zero everywhere"
"""What is said of a map that holds nothing but zeros, wherever it is drawn or printed."""
# Unsigned maps whose low end is this near zero, as a share of the high end, start at zero.
_NEAR_ZERO = 0.2


@dataclass(frozen=True)
class Scale:
    """Limits between which values are drawn; what lies beyond takes the end colours.

    Attributes:
        low: value drawn in the first colour.
        high: value drawn in the last colour; equal to `low` for a map without contrast.
        signed: whether zero is the middle; then `low` is -`high`.
        clipped: share of the values, in [0, 1], that lay beyond the limits when they were chosen.

    Raises:
        ValueError: the limits are not finite, are swapped, or are not symmetric though signed.
    """

    low: float
    high: float
    signed: bool = False
    clipped: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"`low` {self.low:g} and `high` {self.high:g} must be finite, with low <= high")
        if self.signed and self.low != -self.high:
            raise ValueError(
                f"a signed scale is centred on zero, but `low` is {self.low:g} and `high` {self.high:g}; "
                f"use Scale.symmetric({max(-self.low, self.high):g})"
            )

    @classmethod
    def symmetric(cls, limit: float) -> Scale:
        """The signed scale from -`limit` to `limit`; `limit` is finite and not negative."""
        return cls(-limit, limit, signed=True)

    @classmethod
    def of(cls, maps: ArrayLike | Sequence[ArrayLike], *, signed: bool, percentile: float = 99.0) -> Scale:
        """A scale that suits one map, or one scale shared by several maps so that their colours compare.

        Signed: symmetric, up to the percentile of the absolute values. Unsigned: from the
        (100 - percentile)-th to the percentile-th value; a low end nearer to 0 than a fifth of the high end
        is put at 0. Where nearly all values are zero the limit is the largest value: rounding noise is not
        blown up. A map of zeros gets a scale without extent, and so does an unsigned map that is constant
        up to rounding.

        Args:
            maps: an array of any shape, or a sequence of arrays whose shapes may differ.
            signed: whether the sign carries meaning (positive supports the target).
            percentile: in (50, 100]; 100 clips nothing.

        Raises:
            ValueError: `maps` is empty or holds NaN or infinity, or `percentile` is out of its range.
            TypeError: `maps` does not hold real numbers.
        """
        if not 50 < percentile <= 100:
            raise ValueError(f"`percentile` is {percentile:g}; it must lie in (50, 100], 100 clips nothing")
        values = _flat_values(maps)
        if signed:
            sizes = np.abs(values)
            limit = _limit(sizes, percentile)
            return cls(-limit, limit, signed=True, clipped=float(np.mean(sizes > limit)))
        high = _limit(values, percentile)
        low = min(float(np.percentile(values, 100 - percentile)), high)
        if abs(low) <= _NEAR_ZERO * high:
            low = 0.0
        if high - low <= _FLAT * max(abs(low), abs(high)):
            # All of a constant lies at the low end, its rounding noise too: nothing stands out.
            return cls(float(values.max()), float(values.max()))
        return cls(low, high, clipped=float(np.mean((values < low) | (values > high))))

    @property
    def neutral(self) -> float:
        """The value that says nothing: 0 on a signed scale, `low` on an unsigned one."""
        return 0.0 if self.signed else self.low

    def positions(self, values: ArrayLike) -> NDArray[np.float32]:
        """Where values lie on the scale: 0 at `low`, 1 at `high`, clipped; 0.5 is zero on a signed scale.

        On a scale without extent (`low` == `high`) what lies off the limit takes an end colour.
        """
        values = np.asarray(values, dtype=np.float64)
        if self.high > self.low:
            # Halved first: the extent of a scale near the float64 limit would overflow.
            positions = (values / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        elif self.signed:
            positions = 0.5 + 0.5 * np.sign(values)
        else:
            positions = values > self.high
        return np.clip(positions, 0, 1).astype(np.float32)

    def strengths(self, values: ArrayLike) -> NDArray[np.float32]:
        """How much values say, in [0, 1]: 0 at `neutral`, 1 at the limits and beyond them."""
        positions = self.positions(values)
        return np.abs(2 * positions - 1) if self.signed else positions

    def ticks(self) -> tuple[str, str, str]:
        """The numbers under a colour bar, at its low end, middle and high end."""
        middle = 0.0 if self.signed else (self.low + self.high) / 2
        return short(self.low), short(middle), short(self.high)

    def note(self) -> str:
        """What to know beside the numbers, such as "0.8 % clipped"; empty when there is nothing."""
        if self.low == self.high:
            return "the same everywhere" if self.low else EMPTY
        if self.clipped == 0:
            return ""
        return (
            f"{self.clipped:.1%} clipped".replace("%", "\N{NO-BREAK SPACE}%")
            if self.clipped >= 0.001
            else "<0.1\N{NO-BREAK SPACE}% clipped"
        )


def short(value: float) -> str:
    """A number in at most three significant digits, with the mathematical minus sign."""
    # Adding zero turns -0.0 into 0.0.
    return f"{value + 0.0:.3g}".replace("e-0", "e-").replace("e+0", "e").replace("-", "\N{MINUS SIGN}")


def as_map(heatmap: ArrayLike, name: str = "heatmap") -> NDArray[np.float32]:
    """A heatmap as a finite float32 array (h, w).

    Raises:
        ValueError: not two axes, an empty axis, NaN or infinity.
        TypeError: not real numbers.
    """
    values = _real(heatmap, name)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(
            f"`{name}` has shape {values.shape}; give one map (h, w): index the batch, and sum or average the channels"
        )
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    _refuse_non_finite(values, name)
    return values


def _flat_values(maps: ArrayLike | Sequence[ArrayLike]) -> NDArray[np.float64]:
    several: Sequence[Any] = maps if isinstance(maps, (list, tuple)) else [maps]
    # Float64 so that squares and limits of float16 maps do not overflow.
    parts = [_real(one, "maps").astype(np.float64).ravel() for one in several]
    values = np.concatenate(parts) if parts else np.empty(0)
    if values.size == 0:
        raise ValueError("`maps` holds no values; give at least one map")
    _refuse_non_finite(values, "maps")
    return values


def _real(values: ArrayLike, name: str) -> NDArray:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"`{name}` holds {array.dtype}; give an array of real numbers")
    return array


def _refuse_non_finite(values: NDArray, name: str) -> None:
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise ValueError(
            f"`{name}` holds {bad} values of {values.size} that are NaN or infinite; "
            "a colour would hide them, so find where they come from (often an overflow in half precision)"
        )


def _limit(values: NDArray[np.float64], percentile: float) -> float:
    largest = float(values.max())
    limit = float(np.percentile(values, percentile))
    return largest if 0 <= limit < _SPARSE * largest else limit
