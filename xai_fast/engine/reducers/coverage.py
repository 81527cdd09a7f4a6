"""The mean drop of the score over the windows that cover an element."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xai_fast.engine.evaluate import Answers
from xai_fast.ops import window_mean


class CoverageMean:
    """Mean of f(x) − f(hidden) over the windows that hide an element; 0 where none does.

    Args:
        n_samples: number of inputs, N.
        boxes: LongTensor (W, 1 + len(S), 2); variant rows are numbered input by input, window by window.
        shape: (C, *S) of the map; (1, *S) where every window spans the channels.
    """

    def __init__(self, n_samples: int, boxes: Tensor, shape: Sequence[int]) -> None:
        self._n_samples, self._shape = n_samples, tuple(shape)
        self._boxes = boxes
        if self._shape[0] == 1:
            self._boxes = torch.cat([torch.tensor([[[0, 1]]]).expand(len(boxes), 1, 2), boxes[:, 1:]], dim=1)
        self._clean: Tensor | None = None
        self._hidden: Tensor | None = None

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """Keeps f(x)."""
        if self._clean is None:
            width = answers.scores.shape[1]
            self._clean = answers.scores.new_empty(self._n_samples, width)
            self._hidden = answers.scores.new_empty(self._n_samples * len(self._boxes), width)
        self._clean[sample] = answers.scores

    def update(self, rows: Tensor, answers: Answers) -> None:
        """Keeps f(hidden): one number per window and score."""
        assert self._hidden is not None
        self._hidden[rows] = answers.scores

    def finish(self) -> Tensor:
        """(N, K, C, *S), or (N, K, 1, *S) where windows span the channels."""
        assert self._clean is not None
        assert self._hidden is not None
        drops = self._clean[:, None] - self._hidden.view(self._n_samples, len(self._boxes), -1)
        return window_mean(drops, self._boxes, self._shape)
