"""Mosaics of four photographs, whose exact truth is known: which cell speaks for a class, and by how much.

The truth of a cell is its exact Shapley value: the mean change of a logit when the cell is added to the other cells
shown before it, over all orders. Four cells need 16 forwards. What "not shown" looks like is a choice, so there are two
removals, and a mosaic counts only where both agree that the class is in its cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import factorial

import torch
from torch import Tensor

from xai_fast.models.demo.crops import crop, integer
from xai_fast.models.demo.photos import CLASSES

SIDE = 224
CELL = SIDE // 2
REMOVALS = ("grey", "mean")
"""How a cell is hidden: 0.0 in the network's space, which is plain grey, or the cell's own mean colour."""


@dataclass(frozen=True, eq=False)
class Mosaic:
    """Four photographs' crops in one image, and the one asked about.

    Args:
        inputs: (3, 224, 224) in the network's space.
        cells: the classes of the four cells in reading order, all different.
        cell: position in `cells` of the one whose class is explained.
    """

    inputs: Tensor
    cells: tuple[int, int, int, int]
    cell: int

    @property
    def target(self) -> int:
        """The class to explain."""
        return self.cells[self.cell]


def mosaics(n: int, seed: int = 0) -> list[Mosaic]:
    """The first n mosaics of a seed: random crops of four different classes, one of them asked about."""
    generator = torch.Generator().manual_seed(seed)
    return [_mosaic(generator) for _ in range(n)]


def _mosaic(generator: torch.Generator) -> Mosaic:
    a, b, c, d = torch.randperm(len(CLASSES), generator=generator)[:4].tolist()
    inputs = torch.empty(3, SIDE, SIDE)
    for cell, index in zip(_quarters(inputs), (a, b, c, d), strict=True):
        cell.copy_((crop(index, CELL, generator, scale=(0.45, 1.0)) - 0.5) / 0.25)
    return Mosaic(inputs, (a, b, c, d), integer(0, 3, generator))


def _quarters(image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Views of the four cells of (..., H, W), in reading order."""
    height, width = image.shape[-2] // 2, image.shape[-1] // 2
    top, bottom = image[..., :height, :], image[..., height:, :]
    return top[..., :width], top[..., width:], bottom[..., :width], bottom[..., width:]


def shapley(model: Callable[[Tensor], Tensor], mosaic: Mosaic, removal: str) -> Tensor:
    """Exact Shapley values of the four cells for every logit, from 16 forwards.

    Args:
        model: maps inputs (16, 3, 224, 224) to logits (16, K).
        mosaic: whose cells.
        removal: one of `REMOVALS`.

    Returns:
        (4, K): the columns sum to the logits of the whole mosaic minus those of the one with every cell hidden.
    """
    if removal not in REMOVALS:
        raise ValueError(f"`removal` is {removal!r}; use one of {', '.join(map(repr, REMOVALS))}")
    shown = torch.tensor(list(product((0, 1), repeat=4)))  # (16, 4): row r shows the cells of r's binary digits
    rows = mosaic.inputs.repeat(len(shown), 1, 1, 1)
    for i, cell in enumerate(_quarters(rows)):
        hidden = shown[:, i] == 0
        cell[hidden] = 0.0 if removal == "grey" else cell[hidden].mean((2, 3), keepdim=True)
    with torch.inference_mode():
        logits = model(rows)
    weights = torch.zeros(4, len(shown))
    for row, mask in enumerate(shown.tolist()):
        size = sum(mask)
        for i, present in enumerate(mask):
            # The weight of "i joins `others` cells" among all 4! orders; it enters once with and once without i.
            others = size - present
            weights[i, row] = (2 * present - 1) * factorial(others) * factorial(3 - others) / factorial(4)
    return weights.to(logits) @ logits


def truth(model: Callable[[Tensor], Tensor], mosaic: Mosaic, target: int, removal: str) -> Tensor:
    """Exact Shapley values (4,) of the cells for one logit; see `shapley`, which gives all logits at the same cost."""
    return shapley(model, mosaic, removal)[:, target]


def counts(model: Callable[[Tensor], Tensor], mosaic: Mosaic, least: float = 0.9) -> bool:
    """Whether the class's cell holds at least this share of the positive truth under both removals.

    Only then is "the heat belongs in that cell" a fact about the model rather than a hope.
    """
    truths = (truth(model, mosaic, mosaic.target, removal) for removal in REMOVALS)
    return all(_share(values, mosaic.cell) >= least for values in truths)


def cell_sums(heatmap: Tensor) -> Tensor:
    """Sums of a map (H, W) over the four cells in reading order: (4,)."""
    return torch.stack([cell.sum() for cell in _quarters(heatmap)])


def positive_share(heatmap: Tensor, cell: int) -> float:
    """The part of a map's positive sum that lies in one cell, in [0, 1]; 0 where nothing is positive."""
    return _share(cell_sums(heatmap.clamp_min(0)), cell)


def _share(sums: Tensor, cell: int) -> float:
    positive = sums.clamp_min(0)
    total = positive.sum().item()
    return positive[cell].item() / total if total > 0 else 0.0


@dataclass(frozen=True)
class Agreement:
    """How well the maps of several mosaics agree with the truth.

    Args:
        share: mean positive share in the right cell, in [0, 1].
        correlation: Pearson's, of cell sums with true values over all cells of all mosaics at once. It asks for more
            than the order of four cells: a mosaic whose class matters less must also get a weaker map.
        correlation_within: mean over mosaics of Pearson's correlation over its own four cells. It does not see scale,
            and one outstanding cell out of four makes it high; a method without units is judged by this one.
    """

    share: float
    correlation: float
    correlation_within: float


def agreement(heatmaps: Sequence[Tensor], mosaics: Sequence[Mosaic], truths: Sequence[Tensor]) -> Agreement:
    """Score a method's maps of each mosaic's target.

    Args:
        heatmaps: one (H, W) per mosaic, at any resolution with an even number of rows and columns.
        mosaics: what was explained.
        truths: one (4,) per mosaic, as `truth` gives.
    """
    sums, true = torch.stack([cell_sums(h).float() for h in heatmaps]), torch.stack(list(truths)).float()
    shares = [positive_share(h, m.cell) for h, m in zip(heatmaps, mosaics, strict=True)]
    within = [_correlation(a, b) for a, b in zip(sums, true, strict=True)]
    return Agreement(
        share=sum(shares) / len(shares),
        correlation=_correlation(sums.flatten(), true.flatten()),
        correlation_within=sum(within) / len(within),
    )


def _correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation; 0 where one of the two is constant."""
    value = torch.corrcoef(torch.stack([a, b]))[0, 1].item()
    return value if value == value else 0.0
