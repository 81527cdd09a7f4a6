"""Part of a class in other colours, as if its pictures had been given a cast, or made brighter or darker."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .thresholds import Thresholds

Rows = NDArray[np.float64]

LEVEL = 1 / 255  # less than that no picture can differ by
CASTS = np.array([[2.0, -1, -1], [-1, -1, 2]]).T / 3  # red and blue beside grey, which say all of a cast
GREY = np.full((3, 1), 1 / 3)
_NEIGHBOURS, _PART, _WIDTHS = 10, 0.5, (1.5 * LEVEL, 10 * LEVEL)  # of a kernel: half the way to the tenth neighbour
_ANYWHERE = 0.01  # density of pictures that are like no other, of colours from 0 to 1
_OTHER = 0.5  # chance that a picture with the shift shows what other classes show
_OWN, _OTHERS, _AT_ONCE = 256, 256, 4096  # pictures that densities are estimated from; pictures that are asked about
_COMPONENTS, _ROUNDS, _SURE = 6, 30, 0.9
_SAME, _STILL, _TINY = 2 * LEVEL, 1e-3, 1e-12


@dataclass(frozen=True, eq=False)
class Shift:
    """Part of a class whose colours are those of other pictures, shifted.

    Attributes:
        shift: (3,) of the means of red, green and blue.
        share: of the class's pictures that have it.
        towards: (n,) logarithm of the odds that a picture of the class has it.
    """

    shift: Rows
    share: float
    towards: Rows


def shift_of(colours: Rows, seen: NDArray[np.bool_], others: Rows, view: Rows, limits: Thresholds) -> Shift | None:
    """The shift that a smaller part of a class seems to have, which surely explains most of its pictures; None if none.

    A class may have colours of several kinds, so that no two groups lie apart. But without a cast pictures are like the
    class's others, or like those of other classes, and with it they are like none. Where two normal distributions or
    more describe the class better than one (by BIC), what separates any two of them may have been put there. From
    each such shift on follow, in turns, which pictures have it (expectation), and what separates these from those that
    they would be like (maximisation), by densities of kernels. What makes pictures more like those of other classes
    is no cue of this one: that pages are bright is no fault, though some of the class shows something else.

    Args:
        colours: (n, 3) means of red, green and blue of a class's pictures, in [0, 1].
        seen: (n,) those that may be looked at.
        others: (m, 3) of other classes.
        view: (3, D) what is looked at of colours, `CASTS` or `GREY`.
        limits: see there.
    """
    fits: list[_Fit] = []
    own, others = _some(colours[seen], _OWN), _some(others, _OTHERS)
    for shift, part in _starts(own @ view, limits) if len(others) else ():
        fit = _Fit(own, others, view, shift, part)
        if fit.settled() and fit.tells(limits):
            fits.append(fit)
    if not fits:
        return None
    best = max(fits, key=lambda fit: fit.surely)
    return Shift(best.shift, best.share, best.towards(colours))


def _some(rows: Rows, count: int) -> Rows:
    """At most so many, drawn."""
    if len(rows) <= count:
        return rows
    return rows[np.sort(np.random.default_rng(0).permutation(len(rows))[:count])]


def _starts(rows: Rows, limits: Thresholds) -> list[tuple[Rows, Rows]]:
    """Shifts (D,), each another one, with the rows (n,) that may have them: between parts of mixtures of 2 to 6."""
    from sklearn.mixture import GaussianMixture

    made: Any = GaussianMixture  # whose stub knows nothing of what a fit leaves
    mixtures = [made(count, n_init=3, random_state=0).fit(rows) for count in (1, 2)]
    if mixtures[1].bic(rows) >= mixtures[0].bic(rows):
        return []
    mixtures += [made(count, n_init=3, random_state=0).fit(rows) for count in range(3, _COMPONENTS + 1)]
    starts: list[tuple[Rows, Rows]] = []
    for mixture in mixtures[1:]:
        means, part = mixture.means_, mixture.predict(rows)
        for one, other in permutations(range(len(means)), 2):
            shift = means[one] - means[other]
            # What most of a class has may be the class.
            new = all(np.abs(shift - known).max() > _SAME for known, _ in starts)
            if mixture.weights_[one] <= limits.usual and new:
                starts.append((shift, (part == one).astype(float)))
    return starts


class _Fit:
    """Which pictures have a shift, and what it is: expectation and maximisation in turns.

    Attributes:
        shift: (3,) of colours.
        has: (n,) probabilities, of the pictures that densities are estimated from.
    """

    def __init__(self, own: Rows, others: Rows, view: Rows, shift: Rows, part: Rows) -> None:
        self._own, self._others, self._view = own, others, view
        self._widths = tuple(_widths(rows @ view) for rows in (own, others))
        self.shift, self.has = np.linalg.pinv(view).T @ shift, part

    @property
    def share(self) -> float:
        """Of the class's pictures that have it."""
        return float(self.has.mean())

    @property
    def surely(self) -> float:
        """Of the class's pictures that surely have it."""
        return float((self.has > _SURE).mean())

    @property
    def strangeness(self) -> float:
        """By how much less like those of other classes it makes pictures, as a logarithm of densities."""
        rows, others, shift = (one @ self._view for one in (self._own, self._others, self.shift))
        near = (_kernel(one, others, self._widths[1]).mean(1) for one in (rows, rows - shift))
        having, without = (np.log(density + _ANYWHERE) for density in near)
        return float(self.has @ (without - having) / self.has.sum())

    def settled(self) -> bool:
        """Takes turns; whether pictures are left that have it, and others that have not."""
        for _ in range(_ROUNDS):
            before, kernels = self.has, self._kernels(self._own, alone=True)
            self.has = 1 / (1 + np.exp(-self._odds(kernels)))
            if not 1 < self.has.sum() < len(self.has) - 1:
                return False
            self.shift = self._between(kernels)
            if np.abs(self.has - before).max() < _STILL:
                break
        return True

    def tells(self, limits: Thresholds) -> bool:
        """Whether it is of a smaller part, of whose pictures enough surely have it, and not what makes them usual."""
        apart = self.surely >= limits.surely * self.share
        return limits.least_share <= self.share <= limits.usual and apart and self.strangeness > -limits.least_odds

    def towards(self, colours: Rows) -> Rows:
        """(N,) logarithms of the odds that pictures have it."""
        parts = np.array_split(colours, len(colours) // _AT_ONCE + 1)
        return np.concatenate([self._odds(self._kernels(part, alone=False)) for part in parts])

    def _kernels(self, colours: Rows, *, alone: bool) -> tuple[Rows, Rows, Rows, Rows]:
        """How near pictures are to the class's; to those without the shift; and, without it, to them and to others.

        Where they are the class's, each is left out of what it is compared with.
        """
        rows, own, others, shift = (one @ self._view for one in (colours, self._own, self._others, self.shift))
        width, widths = self._widths
        found = (_kernel(rows, own, width), _kernel(rows, own - shift, width), _kernel(rows - shift, own, width))
        if alone:
            for one in found:
                np.fill_diagonal(one, 0)
        return *found, _kernel(rows - shift, others, widths)

    def _odds(self, kernels: tuple[Rows, Rows, Rows, Rows]) -> Rows:
        near, near_without, without_near, without_others = kernels
        natural = (near @ (1 - self.has) + near_without @ self.has) / len(self.has) + _ANYWHERE
        # Two that have the shift are as near to each other without it.
        like_own = (without_near @ (1 - self.has) + near @ self.has) / len(self.has) + _ANYWHERE
        shifted = (1 - _OTHER) * like_own + _OTHER * without_others.mean(1)
        return np.log(self.has.mean() * shifted) - np.log((1 - self.has).mean() * natural)

    def _between(self, kernels: tuple[Rows, Rows, Rows, Rows]) -> Rows:
        """(3,) what separates the pictures that have it from those that they would be like without."""
        _, _, own, others = kernels
        by_own = (1 - _OTHER) / own.shape[1] * own * (1 - self.has)
        weights = np.concatenate([by_own, _OTHER / others.shape[1] * others], 1)
        total = weights.sum(1)
        like = weights @ np.concatenate([self._own, self._others]) / (total[:, None] + _TINY)
        weight = self.has * total / (total + _ANYWHERE) + _TINY
        shift = weight @ (self._own - like) / weight.sum()
        return shift if self._view.shape[1] > 1 else np.full(3, shift.mean())  # brighter is that in all channels


def _widths(rows: Rows) -> Rows:
    """(n,) of the kernels around rows: wider where they lie farther from each other."""
    distances = np.linalg.norm(rows[:, None] - rows, axis=-1)
    tenth = np.sort(distances, axis=1)[:, min(_NEIGHBOURS, len(rows) - 1)]  # the nearest is the row itself
    return (_PART * tenth).clip(*_WIDTHS)


def _kernel(rows: Rows, others: Rows, widths: Rows) -> Rows:
    """(n, m) normal densities around others, at rows."""
    squares = ((rows[:, None] - others) ** 2).sum(-1) / widths**2
    return np.exp(-squares / 2) / (2 * np.pi * widths**2) ** (rows.shape[1] / 2)
