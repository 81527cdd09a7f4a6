"""Shapley values by sampling orders in which segments appear."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch

from xai_fast.engine import Cost
from xai_fast.engine.estimators.shapley import OrderMeans
from xai_fast.engine.reducers.coalitions import Stage
from xai_fast.engine.reducers.levels import marks
from xai_fast.engine.samplers.coalitions import Prefixes
from xai_fast.engine.samplers.subsets import orders
from xai_fast.images.segments import most_segments

from .checks import check_choice, check_count, check_tolerance
from .coalition import AbstractCoalitionMethod, Drawn

Sampler = Literal["permutation", "antithetic"]
_FIRST = 16  # orders, or pairs of them, after which errors are looked at first


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ShapleySampling(AbstractCoalitionMethod):
    r"""Shapley values of segments from random orders (Castro et al. 2009, doi:10.1016/j.cor.2008.04.004).

    .. math:: \phi_i = \mathbb{E}_\pi\bigl[f(x_{\pi, \le i}) - f(x_{\pi, < i})\bigr]

    The segments appear one after the other in the order π on an input that is all baseline; a segment's value is what
    its appearance adds to the score, averaged over orders. Unlike captum's `ShapleyValueSampling`, whose numbers these
    are on the same orders: the score of the whole input is taken from the clean run, beginnings that several orders
    share run once, and ids without positions are no players.

    Values are in units of the score and sum to f(x) less the score of the baseline, whatever the number of orders.
    Every position carries its segment's value, not divided by its size; positions without a segment are never hidden
    and have 0. The explanation has the standard error of every value where there are two orders (or pairs) or more.

    Args:
        model: a module, a callable or an `Engine`.
        segments: a label map, LongTensor (*S,) for every input or (N, *S), below 0 where there is no segment; a name:
            "slic", "quickshift", "felzenszwalb" (scikit-image's) or "grid"; or a function from a picture to a map.
        baseline: what hidden segments become: a number or one per channel in the model's space, a tensor that
            broadcasts to the inputs, "image_mean", "segment_mean", "blur", "black" or "white".
        n_permutations: P, orders per input; of an odd number of antithetic ones the last is left out.
        sampler: "permutation" draws each order on its own; "antithetic" follows each by its reverse (Mitchell et al.
            2022, arXiv:2104.12199), which cancels what two segments do to each other.
        seed: of the draws.
        tolerance: where the engine's mode is "turbo": no more orders are asked about once the standard error of every
            target's map, in its L2 norm, is at most this share of the map's. Looked at after 16 orders (32 antithetic
            ones) and each time their number has doubled; `n_permutations` stays the most.

    Returns (`attribute`): (N, 1, *S).

    Cost: 2 + P (segments - 1) rows forward per input at most, for any number of targets; of a name or function, whose
    number of segments the picture decides, `cost` states it for one per position.

    Raises:
        TypeError, ValueError: settings or segments that do not fit; before the model runs.
    """

    n_permutations: int = 25
    sampler: Sampler = "permutation"
    tolerance: float = 0.1

    def drawn(self, games: Sequence[tuple[int, int]]) -> Drawn:
        """Orders, keyed by (seed, id, number)."""
        together = self._together
        ends = marks(self.engine.settings.mode, _FIRST * together, self._orders)

        @functools.cache
        def of(count: int, key: int) -> torch.Tensor:
            some = orders(self.seed, key, torch.arange(self._orders // together), count)
            return some if together == 1 else torch.stack([some, some.flip(1)], dim=1).flatten(0, 1)

        every = tuple(of(*game) for game in games)
        stages = [
            [Stage(1 + mark * max(order.shape[1] - 1, 0), OrderMeans(order[:mark], together)) for mark in ends]
            for order in every
        ]
        return Drawn(Prefixes(every), stages, self.tolerance)

    @property
    def _together(self) -> int:
        return 2 if self.sampler == "antithetic" else 1

    @property
    def _orders(self) -> int:
        """Of each input."""
        return self.n_permutations // self._together * self._together

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        return Cost(forwards=2 + self._orders * max(most_segments(self.segments, shape) - 1, 0))

    def _check(self) -> None:
        super()._check()
        check_choice(self.sampler, "sampler", ("permutation", "antithetic"))
        check_count(self.n_permutations, "n_permutations", self._together)
        check_tolerance(self.tolerance)
