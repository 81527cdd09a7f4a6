"""The score of what each block of a transformer returns, and its gradient by that block's attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from xai_fast.core import autograd
from xai_fast.core.attention import AttentionWatch, by_head, leaf
from xai_fast.core.layers.places import Take, at_layers
from xai_fast.core.memory import out_of_memory
from xai_fast.core.prepared import Prepared
from xai_fast.core.shelf import Shelf

from .answers import Answers, Response, ScoreOf, Tails
from .gradient import gradients_of
from .watch import by_own_forward

# By blocks and rows: whether what follows the last block takes the tokens of all blocks at once, as so many rows.
_TOGETHER: Shelf[tuple[tuple[str, ...], int], bool] = Shelf("whether blocks are scored together")


@dataclass(frozen=True, eq=False)
class BlockAttention:
    """What the model would say if its last block returned what block l returns, by the attention in block l.

    Each block is handed the tokens of the one before it cut off from their graph. What follows the last one runs on the
    tokens of all blocks at once, or, where it does not take as many rows or mixes them, once per block: then the whole
    model does, once per block.

    Attributes:
        blocks: names of modules that run one after the other, each with one attention among all tokens.
        fold: from gradients (rows, heads, T, T) by its probabilities to what is kept of a block.
    """

    blocks: tuple[str, ...]
    fold: Callable[[Tensor], Tensor]
    forwards: int = field(default=1, init=False)
    backwards: int = field(default=1, init=False)
    together: int = field(default=1, init=False)
    layers: tuple[str, ...] = field(default=(), init=False)

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """Scores (rows, K), and a response per block (rows, K, ...)."""
        names = [f"the attention in {block!r}" for block in self.blocks]
        with torch.enable_grad():
            scores, attention = self._asked(prepared, batch, score_of)
            gradients = gradients_of(torch.stack(scores).sum(0), attention, names)
        kept = [torch.stack([self.fold(column) for column in gradient.unbind(1)], 1) for gradient in gradients]
        return Answers(scores[-1].detach(), responses=tuple(map(Response, kept)))

    def _asked(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf) -> tuple[list[Tensor], list[Tensor]]:
        """The scores (rows, K) of each block's tokens, and each block's probabilities (rows, heads, T, T)."""
        shelves, key = prepared.shelves(batch.shape[1:]), (self.blocks, len(batch))
        known, passage = shelves.get(_TOGETHER, key), _Passage(prepared, self.blocks)
        if known is not False:
            try:
                scores = _split(passage.run(batch, together=True), score_of, len(self.blocks), len(batch))
                if known or _apart(scores[-1], passage.tokens[-1]):
                    shelves.put(_TOGETHER, key, True)
                    return scores, passage.attention
            except Exception as error:  # the user's code, on more rows than there are inputs, may raise anything
                if known or not passage.ended or out_of_memory(error):
                    raise
            shelves.put(_TOGETHER, key, False)
        last = score_of(passage.run(batch, together=False))
        attention, again = passage.attention, score_of.repeated(1)
        return [*(again(passage.ending_with(batch, tokens)) for tokens in passage.tokens[:-1]), last], attention


class _Passage:
    """A forward through blocks that are cut off from each other.

    Attributes:
        tokens: what each block returned (rows, T, features); at last what went on behind the last one.
        ended: whether the last block has run.
    """

    def __init__(self, prepared: Prepared, blocks: tuple[str, ...]) -> None:
        self._prepared, self._blocks = prepared, blocks
        self._watch = AttentionWatch(leaf)
        self.tokens: list[Tensor] = []

    @property
    def ended(self) -> bool:
        return len(self.tokens) == len(self._blocks)

    @property
    def attention(self) -> list[Tensor]:
        """(rows, heads, T, T) of each block."""
        return [by_head(one.kept) for one in self._watch.found[: len(self._blocks)]]

    def run(self, batch: Tensor, *, together: bool) -> Any:
        """The raw output for the last block's tokens; with `together` for those of all blocks, in order."""

        def apart(tokens: Tensor) -> Tensor:
            self.tokens.append(tokens)
            return tokens.detach().requires_grad_() * 1  # what follows may write into it

        def at_last(tokens: Tensor) -> Tensor:
            self.tokens.append(torch.cat([*self.tokens, tokens]) if together else tokens)
            return self.tokens[-1].clone()

        def begin() -> None:
            self._watch.begin()
            self.tokens.clear()

        takes: dict[str, Take] = dict.fromkeys(self._blocks[:-1], apart)
        takes[self._blocks[-1]] = at_last
        with self._watch:
            return self._forward(batch, takes, begin)

    def ending_with(self, batch: Tensor, tokens: Tensor) -> Any:
        """The raw output where the last block returns these tokens in place of its own."""
        return self._forward(batch, {self._blocks[-1]: lambda _: tokens.clone()}, lambda: None)

    def _forward(self, batch: Tensor, takes: dict[str, Take], begin: Callable[[], None]) -> Any:
        module = self._prepared.module
        assert isinstance(module, nn.Module)
        with by_own_forward(self._prepared), at_layers(module, takes):
            return self._prepared.by_itself(batch.clone(), begin)


def _split(raw: Any, score_of: ScoreOf, count: int, rows: int) -> list[Tensor]:
    """The scores (rows, K) of each block's share of a raw output; those of the last one first settle open classes."""

    def own(block: int) -> Any:
        part = slice(block * rows, (block + 1) * rows)
        return tree_map(lambda t: t[part] if isinstance(t, Tensor) and t.ndim and len(t) == count * rows else t, raw)

    last, again = score_of(own(count - 1)), score_of.repeated(1)
    scores = [*(again(own(block)) for block in range(count - 1)), last]
    if any(len(score) != rows for score in scores):
        raise ValueError(f"{len(last)} scores for {rows} inputs")
    return scores


def _apart(scores: Tensor, tokens: Tensor) -> bool:
    """Whether scores of the last block's tokens depend on those of no other block."""
    (gradient,) = autograd.grad(scores.sum(), tokens, retain_graph=True, allow_unused=True)
    return gradient is not None and not gradient[: -len(scores)].any()
