"""Effect sizes, corrections for many tests, and intervals; what scipy has is scipy's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """P-values corrected so that one false claim among all has at most the chance that each is compared with.

    Holm (1979), "A simple sequentially rejective multiple test procedure"; whatever the tests share.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = stepped.clip(max=1)
    return corrected


def discoveries(p_values: NDArray[np.floating], share: float) -> int:
    """How many of the smallest p-values can be claimed where at most a share of the claims may be false on average.

    Benjamini and Hochberg (1995), "Controlling the false discovery rate"; of tests that do not depend on each other.
    """
    p = np.sort(p_values)
    kept = np.flatnonzero(p <= share * np.arange(1, len(p) + 1) / len(p))
    return int(kept[-1]) + 1 if len(kept) else 0


def more_often(hits: int, of: int, other_hits: int, of_others: int) -> float:
    """The chance of so many hits or more where both groups have them alike (Fisher's exact test, one-sided)."""
    from scipy.stats import hypergeom

    return float(hypergeom.sf(hits - 1, of + of_others, hits + other_hits, of))


def more_than(hits: int, of: int, share: float) -> float:
    """The chance of so many hits or more where each comes with the chance `share` (binomial test, one-sided)."""
    from scipy.stats import binom

    return float(binom.sf(hits - 1, of, share))


def mean_below(values: NDArray[np.floating], limit: float) -> float:
    """The chance of so low a mean of values (n,), n at least 2, or a lower one, where the true one is the limit.

    Student's t-test, one-sided; what does not vary at all is certain.
    """
    from scipy.stats import ttest_1samp

    if np.ptp(values) == 0:
        return float(values[0] >= limit)
    found: Any = ttest_1samp(values, limit, alternative="less")
    return float(found.pvalue)


def rank_biserial(values: NDArray[np.floating], others: NDArray[np.floating]) -> tuple[float, float]:
    """How far values lie above others: P(above) - P(below) in [-1, 1], and Mann and Whitney's two-sided p-value."""
    from scipy.stats import mannwhitneyu

    found = mannwhitneyu(values, others)
    return 2 * float(found.statistic) / (len(values) * len(others)) - 1, float(found.pvalue)


def mean_interval(values: NDArray[np.floating], confidence: float, draws: int = 4000) -> tuple[float, float]:
    """A percentile bootstrap interval of the mean of values (n,), n at least 1; the same whenever it is asked for.

    Of `draws` resamples, or of so many more that ten lie beyond each end.
    """
    draws = max(draws, round(20 / (1 - confidence)))
    values = np.asarray(values, np.float64)
    random = np.random.default_rng(0)
    means = np.array([values[random.integers(0, len(values), len(values))].mean() for _ in range(draws)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
