"""Softmax shares of many scores of which a random part was asked: a regression says the others, corrected."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# How strongly the regression is held back, in mean squared lengths of the features; the least of what it errs by wins.
_HELD_BACK = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class Shares:
    """Of D options.

    Attributes:
        shares: (K, D) of each; an option that was asked may have a negative one, which corrects others.
        corrected: LongTensor (n,), a simple random part of those that were not certain to be asked.
        corrections: (K, n) what each of these adds to its own share to correct the others'.
        others: of how many they are a part.
    """

    shares: Tensor
    corrected: Tensor
    corrections: Tensor
    others: int


def largest(features: Tensor, counts: Tensor, asked: Tensor, scores: Tensor, count: int) -> Tensor:
    """LongTensor (count,): the options that seem to have the largest shares of any of K softmaxes."""
    predicted, _ = _predictions(features.double(), asked, scores.double())
    predicted[asked] = scores.double()
    return (predicted.softmax(0) * counts[:, None]).amax(1).topk(min(count, len(features))).indices


def softmax_shares(features: Tensor, counts: Tensor, asked: Tensor, scores: Tensor, certain: Tensor) -> Shares | None:
    r"""What softmax would give each option, from the scores of some that were certain to be asked and of random others.

    With predictions p of all scores s, and p' that leave out the option itself, the sum over the D options that were
    not certain of anything times exp(s) is estimated by the difference estimator (Särndal, Swensson and Wretman 1992,
    section 6.3)

    .. math:: \sum_d b_d e^{p_d} + \frac Dn \sum_{d \in S} b_d (e^{s_d} - e^{p'_d}),

    the shares by the ratio of two sums. Predictions are a ridge regression on the features.

    Args:
        features: (D, F) of each option.
        counts: (D,) how often each stands in the sum below.
        asked: LongTensor (n,), which were asked; at least 3 that were not certain.
        scores: (n, K) what they were given.
        certain: BoolTensor (D,), which were certain to be asked.

    Returns:
        The shares, per time that an option stands there, in float64; None where the sum below came out as nothing.
    """
    scores, counts = scores.double(), counts.double()
    predicted, left_out = _predictions(features.double(), asked, scores)
    most = torch.maximum(predicted.amax(0), scores.amax(0))
    parts, known = (predicted - most).exp(), (scores - most).exp()
    sure = certain[asked]
    parts[asked[sure]] = known[sure]
    others, drawn = int((~certain).sum()), asked[~sure]
    corrections = (known - (left_out - most).exp())[~sure] * (others / max(len(drawn), 1))
    parts = parts.index_add(0, drawn, corrections)
    below = (parts * counts[:, None]).sum(0)
    if not bool((below > 0).all()):
        return None
    return Shares((parts / below).T, drawn, (corrections / below).T, others)


def _predictions(features: Tensor, asked: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression in the space of the options that were asked: of all (D, K), and of those without themselves."""
    centre, mean = features[asked].mean(0), scores.mean(0)
    own = features[asked] - centre
    values, vectors = torch.linalg.eigh(own @ own.T)
    values = values.clamp_min(0)
    turned = vectors.T @ (scores - mean)
    best: tuple[float, Tensor, Tensor] | None = None
    for times in _HELD_BACK:
        held = times * float(values.mean()) + 1e-12
        fitted = vectors @ (turned * (values / (values + held))[:, None]) + mean
        leverage = 1 / len(asked) + (vectors.square() * (values / (values + held))).sum(1)
        left = (scores - fitted) / (1 - leverage).clamp_min(1e-3)[:, None]
        loss = float(left.square().sum())
        if best is None or loss < best[0]:
            best = loss, vectors @ (turned / (values + held)[:, None]), scores - left
    assert best is not None
    _, weights, left_out = best
    return (features - centre) @ (own.T @ weights) + mean, left_out
