"""LeGrad: how the score of what every block returns would rise with what that block attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from xai_fast.core.layers import TokenPlaces
from xai_fast.engine import Cost
from xai_fast.engine.evaluate import Answers, Evaluate
from xai_fast.engine.evaluate.blocks import BlockAttention
from xai_fast.engine.reducers.cam import wide
from xai_fast.methods.checks import check_count

from .base import AbstractAttentionMethod


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LeGrad(AbstractAttentionMethod):
    r"""The gradient of each block's own score by its attention (Bousselham et al. 2024, arXiv:2404.03214, section 3).

    .. math:: E_j = \frac1L \sum_{l=1}^{L} \frac{1}{H T} \sum_{h=1}^{H} \sum_{i=1}^{T}
              \Bigl(\frac{\partial s^{(l)}}{\partial A^{(l)}_{hij}}\Bigr)^{+}

    The score s of block l is what the model would say if its last block returned what block l returns: the final
    normalisation, the pooling and the classifier, or the target's text, run on the tokens of every block. The gradient
    is taken through block l alone, by the attention of its H heads from T queries i to key j, and is not multiplied by
    the attention.

    Values are not negative, in units of the score. Two deviations: the paper scales the map to 0 to 1 at the end, which
    pictures do here; and where attention of a query of its own pools the tokens at the end, the paper takes the
    gradient by that attention, and here the blocks' own is taken as anywhere else.

    Args:
        model: a module or an `Engine`.
        grid: as `AbstractAttentionMethod`.
        blocks: how many of the last blocks count, L; None for all, as in the paper.

    Returns (`attribute`): (N, 1, H, W), bilinear with `align_corners=False`; with `resolution="native"` (N, 1, h, w) on
    the grid of the tokens.

    Cost: one row forward per input, one backward per input and target, each block only from its end to its attention;
    a forward per block where what follows the last one does not take the tokens of all blocks as so many rows. A new
    shape of inputs costs 3 + 4 rows per axis beside it.

    Raises:
        ValueError: the model has no blocks with one attention among all tokens each, or how they lie over the input
            stays open.
    """

    blocks: int | None = None

    def _question(self, inputs: Tensor) -> Evaluate:
        names = self.engine.blocks(inputs)
        if self.blocks is not None and self.blocks > len(names):
            raise ValueError(f"`blocks` came as {self.blocks}, and this model has {len(names)}; give at most that many")
        return BlockAttention(names, _rising)

    def _shares(self, answers: Answers, places: TokenPlaces) -> Tensor:
        counted = answers.responses[-self.blocks :] if self.blocks else answers.responses
        return torch.stack([response.activation for response in counted]).mean(0)

    def _check(self) -> None:
        super()._check()
        if self.blocks is not None:
            check_count(self.blocks, "blocks")

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        return Cost(forwards=1, backwards=1)


def _rising(gradient: Tensor) -> Tensor:
    """Means over heads and queries: (rows, heads, T, T) to (rows, T)."""
    return wide(gradient).relu().mean((1, 2))
