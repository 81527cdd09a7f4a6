"""Attention followed from what the score is read from down to the input's tokens, layer after layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from xai_fast.core.indices import beside
from xai_fast.core.layers import TokenPlaces
from xai_fast.engine import Cost
from xai_fast.engine.evaluate import Answers, Evaluate
from xai_fast.engine.evaluate.attention import AttentionMaps
from xai_fast.engine.reducers.cam import wide

from .base import AbstractAttentionMethod


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AttentionRollout(AbstractAttentionMethod):
    r"""How much of each token arrives where the score is read, if attention is all that moves (Abnar and Zuidema 2020).

    .. math:: R = \tilde A^{(L)} \cdots \tilde A^{(1)}, \qquad
              \tilde A^{(l)} = \tfrac12 \Bigl(\tfrac1H \sum_h A^{(l)}_h + I\Bigr)

    arXiv:2005.00928, equation 1. Heads are averaged, half of a token stays where it is (the residual connection), rows
    are normalised, later layers multiply from the left. The map is the row of the class token over the tokens of the
    grid; where the score is read from several tokens, as from a mean over all of them, the mean of their rows; where
    attention of other queries pools the tokens at the end, theirs.

    Values are not negative and sum, with the class and register tokens' shares, to 1 on the grid of tokens. The target
    changes nothing: attention is the same for every class.

    Attention is taken as the model computes it, fused or not: `scaled_dot_product_attention`, `nn.MultiheadAttention`,
    or a softmax whose result multiplies values.

    Args:
        model: a module or an `Engine`.
        grid: as `AbstractAttentionMethod`.

    Returns (`attribute`): (N, 1, H, W), bilinear with `align_corners=False`; with `resolution="native"` (N, 1, h, w) on
    the grid of the tokens.

    Cost: one row forward per input. A new shape of inputs costs 2 + 4 rows per axis beside it.

    Raises:
        ValueError: no attention among all tokens runs in the model, or how they lie over the input stays open.
    """

    def _question(self, inputs: Tensor) -> Evaluate:
        return AttentionMaps(_over_heads)

    def _shares(self, answers: Answers, places: TokenPlaces) -> Tensor:
        return followed((_half(response.activation) for response in reversed(answers.responses)), places.read)

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        return Cost(forwards=1)


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GradientAttentionRollout(AbstractAttentionMethod):
    r"""Rollout of attention as far as it raises the score (Chefer et al. 2021, arXiv:2103.15679, equations 5 and 6).

    .. math:: R \leftarrow R + \bar A^{(l)} R, \qquad
              \bar A^{(l)} = \frac1H \sum_h \Bigl(\frac{\partial f}{\partial A^{(l)}_h} \odot A^{(l)}_h\Bigr)^{+}

    The rule for self-attention, from the first layer to the last, beginning with R = I. The map is the row of the class
    token over the tokens of the grid; where the score is read from several tokens, the mean of their rows less the I
    that it began with, which would add a constant.

    Values are not negative, in no unit. Arguments, shapes and errors are those of `AttentionRollout`.

    Cost: one row forward and one backward per input and target.
    """

    def _question(self, inputs: Tensor) -> Evaluate:
        return AttentionMaps(_rising, backwards=1)

    def _shares(self, answers: Answers, places: TokenPlaces) -> Tensor:
        layers = [_and_itself(response.activation) for response in reversed(answers.responses)]
        shares = followed(layers, places.read)
        return shares - beside(places.read, shares).to(shares.dtype) if len(places.read) == shares.shape[-1] else shares

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        return Cost(forwards=1, backwards=1)


def followed(layers: Iterable[Tensor], read: Tensor) -> Tensor:
    """The row vector `read` (T,) times the matrices (rows, K, T, T) of the layers, the last layer first: (rows, K, T).

    Products of a vector are a T-th of the work of those of the matrices.
    """
    row: Tensor | None = None
    for matrix in layers:
        row = beside(read, matrix).to(matrix.dtype).expand(*matrix.shape[:2], 1, -1) if row is None else row
        row = row @ matrix
    assert row is not None
    return row[..., 0, :]


def _over_heads(probabilities: Tensor, _gradient: Tensor | None) -> Tensor:
    return wide(probabilities).mean(1)


def _half(attention: Tensor) -> Tensor:
    """Half of it and half of what stays where it is, rows normalised; of queries that are no tokens nothing stays."""
    if attention.shape[-2] == attention.shape[-1]:
        attention = 0.5 * _and_itself(attention)
    return attention / attention.sum(-1, keepdim=True)


def _and_itself(attention: Tensor) -> Tensor:
    """(…, T, T) and the identity; of queries that are no tokens (…, Q, T) as it is."""
    if attention.shape[-2] != attention.shape[-1]:
        return attention
    return attention + torch.eye(attention.shape[-1], dtype=attention.dtype, device=attention.device)


def _rising(probabilities: Tensor, gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return (wide(gradient) * wide(probabilities)).relu().mean(1)
