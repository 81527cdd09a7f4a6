"""Noisy copies of images, on which maps are made once more: which images have one, and what it is, by their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xai_fast.core.random import uniforms
from xai_fast.ops import add_noise

_SEED = 0x2019  # none of a method's, whose noise would be the same


@dataclass(frozen=True)
class Noise:
    """What a noisy copy is.

    Attributes:
        share: of all images that have one, in (0, 1].
        scale: deviation of the noise, as a share of the range of each input's values.
    """

    share: float
    scale: float = 0.02

    def chosen(self, ids: Sequence[int]) -> list[int]:
        """Places of the images that have a noisy copy: of each image by its id alone."""
        keys = torch.tensor(ids, dtype=torch.long)
        drawn = uniforms(_SEED, keys, torch.ones_like(keys), 1)[:, 0]
        return (drawn < self.share).nonzero()[:, 0].tolist()

    def added(self, inputs: Tensor, ids: Tensor) -> Tensor:
        """Copies of inputs (N, C, *S) with normal noise, each element's a function of the id and its address."""
        flat = inputs.flatten(1).double()
        scale = self.scale * (flat.amax(1) - flat.amin(1)).cpu()
        count = torch.arange(len(inputs))
        out = torch.empty_like(inputs)
        return add_noise(inputs, scale, count, ids.cpu(), torch.zeros_like(count), _SEED, out)
