"""Steps along a straight path, put where the gradient still changes, until its integral is known well enough.

Along b + a (x - b) the gradient of a ReLU network changes by countless small jumps, one per unit that switches: it
walks like a Brownian motion of varying speed. Three things follow, and make the rule here. High orders gain nothing on
such a walk: straight lines between neighbours are the best estimate, and even steps beat Gauss-Legendre's crowded ends.
By how much a piece errs follows from how far its two gradients lie apart, so that a single level tells the map's error,
and which pieces it comes from. And as both scores are known, so is the map's sum: the weights lean towards steep steps
or away from them, as little as possible, until it is right.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from xai_fast.core.indices import known
from xai_fast.engine.estimators.walk import Sums, Walk, squared_norm, trapezoid

FIRST = 8
"""Steps of the first level."""

KEPT = 127
"""Gradients that are kept (77 MB at 3x224x224 in float32), because a step between two others changes their weights.

From there on all pieces are halved at once, which halves all weights, so that a running sum is enough. Three halvings
take 127 steps to 1017.
"""

COARSEST = 0.047
"""The largest estimated error of a map, as a share of its L2 norm, that counts as settled.

Meant as 5 %: on trained and on random networks the true error was 0.75 to 1.06 times the estimate.
"""


class AdaptivePath:
    """The integral of one input's gradient from a baseline to the input, for K targets that share its steps.

    While `next` returns steps, evaluate scores and gradients there and `take` them; then read `values`.

    It stops where, for every target, the sum of the map is within `tolerance` of the difference of the scores and the
    map's estimated error is at most `settled`, min(0.047, sqrt(tolerance) / 2): with fixed steps, the gap falls with
    about the square of the map's error. Each level adds as many steps as the estimate asks for, at most doubling them
    (at most half as many again below 16, where the estimate asks for too many).

    Memory: up to `KEPT` gradients. Cost: at most `max_steps` gradients, fewer where a last halving would not fit.

    Args:
        difference: x - b, (C, *S), on the device of the gradients.
        ends: (2, K), the scores of b and of x.
        tolerance: of the sum, as a share of max(|f(x) - f(b)|, 1e-6 |f(x)|); positive.
        max_steps: gradients to stop at, at least 1.

    Attributes:
        values: (K, C, *S), the map so far.
        gap: (K,), its sum minus f(x) - f(b); float64 on the CPU, as `error` is.
        error: (K,), its estimated error, as a share of its L2 norm.
        settled: what `error` has to fall to.
        steps: gradients taken.
        reached: whether `gap` and `error` are low enough for every target.

    Raises:
        ValueError: `tolerance` or `max_steps` is out of range.
    """

    def __init__(self, difference: Tensor, ends: Tensor, *, tolerance: float, max_steps: int = 1024) -> None:
        if not tolerance > 0:
            raise ValueError(f"`tolerance` is {tolerance}; it must be positive")
        if max_steps < 1:
            raise ValueError(f"`max_steps` is {max_steps}; it must be at least 1")
        self._difference, self._max_steps = difference, max_steps
        self._ends = ends.detach().double().cpu()
        self._rise = self._ends[1] - self._ends[0]
        self._allowed = tolerance * torch.maximum(self._rise.abs(), 1e-6 * self._ends[1].abs())
        self.settled = min(COARSEST, math.sqrt(tolerance) / 2)
        self.steps, self.reached = 0, False
        self.gap = self.error = torch.full_like(self._rise, torch.inf)
        self.values = difference.new_zeros(len(self._rise), *difference.shape)
        self._walk: Walk | None = Walk(len(self._rise))
        self._taken: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # of the level at hand
        first = min(FIRST, max_steps)
        self._ask((torch.arange(first, dtype=torch.float64) + 0.5) / first)

    def next(self) -> Tensor | None:
        """The next level's steps, ascending in [0, 1], float64 (n,) on the CPU; None where it is over.

        Raises:
            ValueError: steps of the level before have not been taken.
        """
        if 0 < self._missing < len(self._level):
            raise ValueError(f"`next` was called with {self._missing} steps of the level before not taken")
        if self._missing == 0 and len(self._level):
            self._judge()
            self._plan()
        return self._level if len(self._level) else None

    def take(self, rows: Tensor, scores: Tensor, gradient: Tensor) -> None:
        """Takes what was found at steps of the level; each step once, in any order and chunks.

        Args:
            rows: LongTensor (n,), their positions in what `next` returned.
            scores: (n, K).
            gradient: (n, K, C, *S) of the scores by the input.
        """
        rows = known(rows)
        maps = (gradient * self._difference).flatten(2)
        slopes = maps.sum(2, dtype=torch.float64)
        self._missing -= len(rows)
        self.steps += len(rows)
        if self._walk is not None:
            self._taken.append((self._level[rows], scores.double(), slopes, maps))
        else:
            self._sums.add(self._weights[rows], slopes, maps)

    def _ask(self, level: Tensor) -> None:
        self._level, self._missing = level, len(level)

    def _judge(self) -> None:
        """Brings the map, its gap and its error up to date with a complete level."""
        before = self.values
        if self._walk is not None:
            self._hand_on(self._walk)
            self._walk.measure()
            self._nodes = self._walk.nodes
            self._sums = Sums(len(self._rise), self._difference.device)
            slopes = self._walk.slopes.to(self._difference.device)
            for weight, slope, part in zip(trapezoid(self._nodes), slopes, self._walk.maps, strict=True):
                self._sums.add(weight[None], slope[None], part[None])
        values, leant, self.gap = self._sums.closed(self._rise)
        self.values, self._squared = values.view(-1, *self._difference.shape), squared_norm(values)
        if self._walk is not None:
            self._pieces = self._walk.errors()
            squared = self._pieces.sum(0)
        else:  # halving the pieces of a walk moves the sum by three times (squared) what it errs by afterwards
            squared = squared_norm((self.values - before).flatten(1)) / 3
        self._leant = squared_norm(leant)  # what had to be put right by leaning is known no better than that
        squared = squared + self._leant
        self.error = torch.where(squared == 0, squared, squared / self._squared).sqrt()
        self.reached = bool((self.error <= self.settled).all() and (self.gap.abs() <= self._allowed).all())

    def _hand_on(self, walk: Walk) -> None:
        """Gives the walk what the level has found; scores and slopes are read once for all of it."""
        nodes, scores, slopes, maps = zip(*self._taken, strict=True)
        sizes = [len(some) for some in nodes]
        read = (torch.cat(some).cpu().split(sizes) for some in (scores, slopes))
        for found in zip(nodes, *read, maps, strict=True):
            walk.add(*found)
        self._taken.clear()

    def _plan(self) -> None:
        """Asks for the next level: nothing where it is over, also after NaN, which more steps do not mend."""
        room = self._max_steps - self.steps
        unsettled, open_ = self.error > self.settled, self.gap.abs() > self._allowed
        if room == 0 or not (unsettled | open_).any():
            self._ask(self._level[:0])
        elif self._walk is None or self.steps >= KEPT:
            self._halve(room)
        else:
            most = min(room, KEPT - self.steps, self.steps if self.steps >= 16 else self.steps // 2)
            pieces, goal = self._pieces, self.settled**2 * self._squared - self._leant
            if not unsettled.any():  # gradients agree with each other and not with the scores: something lies between
                pieces, goal = self._walk.residuals(self._ends) * open_, self._allowed**2
            self._ask(self._walk.further(pieces, goal, least=min(max(2, self.steps // 8), most), most=most))

    def _halve(self, room: int) -> None:
        """Asks for the middle of every piece, and once for both ends, so that pieces reach from 0 to 1."""
        nodes = self._nodes
        level, self._weights = (nodes[1:] + nodes[:-1]) / 2, nodes.diff() / 2
        if nodes[0] > 0:
            level = torch.cat([nodes.new_zeros(1), level, nodes.new_ones(1)])
            self._weights = torch.cat([nodes[:1] / 2, self._weights, (1 - nodes[-1:]) / 2])
        if len(level) > room:
            level = level[:0]
        else:
            self._walk = None
            self._sums.halve()
            self._nodes = torch.cat([nodes, level]).sort().values
        self._ask(level)
