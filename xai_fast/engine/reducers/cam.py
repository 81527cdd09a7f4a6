"""Class activation maps: weighted channels, rectified, resized, fused over layers, averaged over passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from xai_fast.core.layers import as_grid
from xai_fast.engine.evaluate import Answers, Response
from xai_fast.engine.samplers.augmented import Augmented
from xai_fast.ops import cam_reduce

Weights = Callable[[Tensor, Tensor], Tensor]


class ClassActivation:
    """Makes a map of every pass and averages the passes of an input.

    Args:
        weights: channel weights (rows, K, C) from activations (rows, C, *s) and gradients (rows, K, C, *s).
        n_samples: number of inputs, N.
        size: *S of the inputs.
        native: whether maps stay on the layer's grid (the largest of several).
        fuse: "max" or "mean" over layers.
        eigen: the first principal component of the weighted activations instead of their sum.
        variants: the augmented passes, where there are any.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        n_samples: int,
        size: Sequence[int],
        native: bool,
        fuse: str,
        eigen: bool,
        variants: Augmented | None,
    ) -> None:
        self._weights, self._size, self._native = weights, tuple(size), native
        self._fuse, self._eigen, self._variants = fuse, eigen, variants
        self._n_samples = n_samples
        self._total: Tensor | None = None

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """Adds the maps of the clean pass."""
        maps = self._maps(answers.responses)
        if self._total is None:
            self._total = maps.new_zeros(self._n_samples, *maps.shape[1:])
        self._total[sample] += maps

    def update(self, rows: Tensor, answers: Answers) -> None:
        """Adds the maps of augmented passes, mirrored ones turned back."""
        assert self._variants is not None
        assert self._total is not None
        maps = self._maps(answers.responses)
        mirrored = self._variants.mirrored(rows)
        maps[mirrored] = maps[mirrored].flip(-1)
        self._total.index_add_(0, self._variants.sample_of(rows).to(maps.device), maps)

    def finish(self) -> Tensor:
        """(N, K, 1, *size)."""
        assert self._total is not None
        passes = 1 if self._variants is None else 1 + self._variants.PER_INPUT
        return (self._total / passes).unsqueeze(2)

    def _maps(self, responses: Sequence[Response]) -> Tensor:
        """(rows, K, *size) of one pass."""
        grids = [self._grids(response) for response in responses]
        size = max((tuple(a.shape[2:]) for a, _ in grids), key=lambda s: torch.Size(s).numel())
        size = size if self._native else self._size
        maps = [self._map(activation, gradient, size) for activation, gradient in grids]
        if len(maps) == 1:
            return maps[0]
        stacked = torch.stack(maps)
        return stacked.amax(0) if self._fuse == "max" else stacked.mean(0)

    def _grids(self, response: Response) -> tuple[Tensor, Tensor]:
        gradient = response.gradient
        by_row = as_grid(gradient.flatten(0, 1), self._size)
        return as_grid(response.activation, self._size), by_row.unflatten(0, gradient.shape[:2])

    def _map(self, activation: Tensor, gradient: Tensor, size: tuple[int, ...]) -> Tensor:
        weights = self._weights(activation, gradient)
        resized = None if size == tuple(activation.shape[2:]) else size
        if not self._eigen:
            return cam_reduce(activation, weights, relu=True, size=resized)
        component = principal_map(activation, weights)
        one = component.new_ones(len(component), component.shape[1], 1)
        maps = [
            cam_reduce(component[:, k, None], one[:, k, None], relu=True, size=resized)
            for k in range(component.shape[1])
        ]
        return torch.cat(maps, dim=1)


def principal_map(activation: Tensor, weights: Tensor) -> Tensor:
    """The weighted activations' projection on their first principal component over positions: (rows, K, *s).

    Its sign, which the decomposition leaves open, is chosen so that it correlates positively with the channels' sum.
    """
    weighted = activation[:, None].flatten(3).double() * weights[..., None].double()  # (rows, K, C, positions)
    total = weighted.sum(2)
    centred = weighted - weighted.mean(3, keepdim=True)
    # A decomposition of one row with NaN would fail for all; the loop has already named that row.
    centred = torch.where(centred.isfinite().all(3).all(2)[..., None, None], centred, 0.0)
    # The smaller Gram matrix: late layers have few positions and many channels, early ones the reverse.
    if centred.shape[3] <= centred.shape[2]:
        values, vectors = torch.linalg.eigh(centred.transpose(2, 3) @ centred)
        component = vectors[..., -1] * values[..., -1:].clamp_min(0).sqrt()
    else:
        vectors = torch.linalg.eigh(centred @ centred.transpose(2, 3)).eigenvectors
        component = (vectors[..., None, :, -1] @ centred)[..., 0, :]
    agreement = (component * (total - total.mean(2, keepdim=True))).sum(2, keepdim=True)
    component = torch.where(agreement < 0, -component, component)
    return component.view(*component.shape[:2], *activation.shape[2:]).to(activation.dtype)
