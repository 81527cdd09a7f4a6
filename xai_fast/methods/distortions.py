"""Small random movements of a picture, so that what is optimised does not depend on exact positions."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Distortions:
    """One movement per step, the same for every picture of a batch.

    Attributes:
        n_steps: how many steps there are.
        axes: how many axes a picture has beside its channels.
        jitter: the picture is rolled by up to this many elements along every axis, to either side; the ends meet.
        scale: then it is enlarged around its centre by a factor within 1 ± scale, linearly, its size kept; where it
            shrinks it is continued by its mirror image. At most 0.5.
        seed: of the draws.
    """

    n_steps: int
    axes: int
    jitter: int
    scale: float
    seed: int

    _draws: Tensor = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        draws = torch.rand(self.n_steps, self.axes + 1, generator=generator, dtype=torch.float64)
        object.__setattr__(self, "_draws", draws)

    def __call__(self, pictures: Tensor, step: int) -> Tensor:
        """Pictures (rows, C, *S) as they are shown in `step`."""
        *shares, share = self._draws[step].tolist()
        shifts = [int(one * (2 * self.jitter + 1)) - self.jitter for one in shares]
        zoom = 1 + self.scale * (2 * share - 1)
        if self.jitter:
            pictures = pictures.roll(shifts, tuple(range(2, pictures.ndim)))
        if self.scale:
            for axis in range(2, pictures.ndim):
                pictures = _zoomed(pictures, axis, zoom)
        return pictures


def _zoomed(pictures: Tensor, axis: int, zoom: float) -> Tensor:
    """Enlarged along one axis around the middle."""
    length = pictures.shape[axis]
    last = length - 1
    places = torch.arange(length, dtype=torch.float64)
    places = (places - last / 2) / zoom + last / 2
    places = last - (last - places.abs()).abs()  # mirrored at both ends
    low = places.floor().clamp(0, max(last - 1, 0)).long()
    high = (low + 1).clamp(max=last)
    weight = (places - low).to(pictures).view(-1, *[1] * (pictures.ndim - 1 - axis))
    low, high = low.to(pictures.device), high.to(pictures.device)
    return torch.lerp(pictures.index_select(axis, low), pictures.index_select(axis, high), weight)
