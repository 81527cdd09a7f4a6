"""What hiding a segment costs, laid over its positions."""

from __future__ import annotations

import torch
from torch import Tensor

from xai_fast.engine.evaluate import Answers
from xai_fast.images.segments import SegmentMap


class Drops:
    """f(x) − f(hidden) per row, of which `finish` makes maps; the rows of an input follow each other.

    Args:
        counts: LongTensor (N,) rows of each input.
    """

    def __init__(self, counts: Tensor) -> None:
        self._counts = counts
        self._clean: Tensor | None = None
        self._hidden: Tensor | None = None

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """Keeps f(x)."""
        if self._clean is None:
            width = answers.scores.shape[1]
            self._clean = answers.scores.new_empty(len(self._counts), width)
            self._hidden = answers.scores.new_empty(int(self._counts.sum()), width)
        self._clean[sample] = answers.scores

    def update(self, rows: Tensor, answers: Answers) -> None:
        """Keeps f(hidden): one number per row and score."""
        assert self._hidden is not None
        self._hidden[rows] = answers.scores

    def table(self) -> Tensor:
        """(N, K, largest count): the drops; 0 beyond an input's own count."""
        assert self._clean is not None
        assert self._hidden is not None
        most = int(self._counts.max())
        there = (torch.arange(most) < self._counts[:, None]).to(self._clean.device)
        hidden = self._clean[:, None].expand(-1, most, -1).clone()
        hidden[there] = self._hidden
        return (self._clean[:, None] - hidden).transpose(1, 2)


def laid_over(labels: Tensor, values: Tensor) -> Tensor:
    """Maps (N, K, 1, *S) in which every position carries the value (N, K, segments) of its label (N, *S); -1 has 0."""
    padded = torch.cat([values.new_zeros(*values.shape[:2], 1), values], dim=2)
    index = (labels.to(values.device) + 1).flatten(1)[:, None].expand(-1, values.shape[1], -1)
    return padded.gather(2, index).view(*values.shape[:2], 1, *labels.shape[1:])


class SegmentValues(Drops):
    """Every position carries the drop of its segment; 0 where there is none."""

    def __init__(self, segments: SegmentMap) -> None:
        super().__init__(segments.counts)
        self._labels = segments.labels

    def finish(self) -> Tensor:
        """(N, K, 1, *S)."""
        return laid_over(self._labels, self.table())


class MaskMeans(Drops):
    """Every position carries the mean drop of the masks that cover it; 0 where none does.

    Args:
        masks: BoolTensor (N, K, *S), or (1, K, *S) for the same masks on every input.
        n_samples: N.
    """

    def __init__(self, masks: Tensor, n_samples: int) -> None:
        super().__init__(torch.full((n_samples,), masks.shape[1]))
        self._masks = masks

    def finish(self) -> Tensor:
        """(N, K, 1, *S)."""
        table = self.table()
        masks = self._masks.to(table).expand(len(table), *self._masks.shape[1:])
        total = torch.einsum("nkm,nm...->nk...", table, masks)
        return (total / masks.sum(1).clamp_min(1)[:, None])[:, :, None]
