"""How the tokens that attend to each other lie over the input, and which of them the score is read from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.core import autograd
from xai_fast.core.attention import AttentionWatch, by_head, leaf, refusal

from .answering import BANDS, banded, centres_of, noise_like, reading_of, wide
from .choosing import wake
from .grids import Tokens


@dataclass(frozen=True, eq=False)
class TokenPlaces:
    """The tokens of a transformer.

    Attributes:
        grid: which lie on a grid over the input, and how.
        read: (Q,) the share of each query of the last attention, mostly tokens themselves, in what the score is read
            from: all of it the class token's, or that of every token over which a mean is taken. Sums to 1.
    """

    grid: Tokens
    read: Tensor


def token_places(
    module: nn.Module,
    example: Tensor,
    score_of: Callable[[Any], Tensor],
    grid: tuple[int, ...] | None = None,
    *,
    ours: bool,
) -> TokenPlaces:
    """Where the tokens of `module` lie.

    Runs 1 + 4 rows per spatial axis on noise, as many around the example where noise tells nothing, and a row with
    gradients behind its last attention.

    Args:
        module: our own copy, or the caller's model under guard.
        example: one input (1, C, *S), in the module's dtype, on its device.
        score_of: from the raw output to what is explained, a tensor of any shape.
        grid: extents that are given.
        ours: whether it is a copy, whose weights may be changed.

    Raises:
        ValueError: there is no attention of all tokens to all tokens, or where they lie stays open.
    """
    places = _places(module, example, grid)
    for row in (example, noise_like(example, 1)):  # an input on which the model is silent says nothing
        if (read := _read(module, row, score_of)) is not None:
            return TokenPlaces(places, read)
    if ours:
        wake(module)
        read = _read(module, noise_like(example, 1), score_of)
    if read is None:
        raise ValueError(
            "`target` does not depend on the last attention of this `model`; choose another target, or another method"
        )
    return TokenPlaces(places, read)


def _places(module: nn.Module, example: Tensor, grid: tuple[int, ...] | None) -> Tokens:
    """How the tokens lie over the input."""
    axes, count = example.ndim - 2, 0
    for around in (False, True):
        centres = _coordinates(module, example, around=around)
        count = centres.shape[1]
        found = reading_of(centres, grid)
        if found is not None:  # along the one axis of a signal a sequence without other tokens is no run of tokens
            return found if isinstance(found, Tokens) else Tokens(0, (count,))
    fits = ", ".join("hw" if axes == 2 else "s" * axes)
    if grid is None:
        raise ValueError(
            f"`model` attends among {count} tokens, and how they lie over an input of {tuple(example.shape[2:])} is "
            f"not to be told from how they answer to changes of it; give `grid=({fits})`"
        )
    if len(grid) != axes or prod(grid) > count:
        raise ValueError(f"`grid` {grid} is not to be found in the {count} tokens of this model; give ({fits})")
    return Tokens(count - prod(grid), grid)


def _read(module: nn.Module, example: Tensor, score_of: Callable[[Any], Tensor]) -> Tensor | None:
    """By the gradient of the score by the last attention: a query that nothing is read from has none.

    All queries where there is no score to differentiate, which the run will say; None where no gradient arrives.
    """
    with torch.enable_grad():
        with AttentionWatch(leaf) as watch:
            raw = module(example.clone())
        score, last = score_of(raw), watch.found[-1].kept
        if not score.requires_grad:
            return torch.full((last.shape[-2],), 1 / last.shape[-2], dtype=torch.float64)
        weight = torch.randn(score.shape, generator=torch.Generator().manual_seed(0), device="cpu").to(score)
        (gradient,) = autograd.grad((score * weight).sum(), last, allow_unused=True)
    if gradient is None or not gradient.any():
        return None
    read = by_head(gradient)[0].ne(0).any(2).any(0).double()
    return (read / read.sum()).cpu()


@torch.no_grad()
def _coordinates(module: nn.Module, example: Tensor, *, around: bool) -> Tensor:
    """Where the tokens that the first attention mixes lie: (axes, T, features), as `coordinates` of a layer."""
    found = []
    for row in banded(example, around=around).split(1):
        with AttentionWatch() as watch:
            module(row)
        if (reason := refusal(watch.found, len(row))) is not None:
            raise ValueError(
                f"`model` cannot be explained by its attention: {reason}; take one whose tokens all attend to each "
                "other, as a ViT's do, or another method"
            )
        assert watch.values is not None
        found.append(wide(by_head(watch.values).movedim(-2, 1).flatten(2)))
    rows = torch.cat(found)
    moved = (rows[1:] - rows[:1]).square()
    return centres_of(moved.unflatten(0, (example.ndim - 2, BANDS)))
