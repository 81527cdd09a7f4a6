"""The blocks of a transformer: the modules, one after the other, in each of which all tokens attend to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.core.attention import AttentionWatch


@torch.no_grad()
def blocks_of(module: nn.Module, example: Tensor) -> tuple[str, ...]:
    """Names of the outermost modules that have one attention each, in the order in which they run; runs a row.

    Attention at the end by queries that are no tokens, which pools them, belongs to no block.

    Args:
        module: our own copy, or the caller's model under guard.
        example: one input (1, C, *S).

    Raises:
        ValueError: there are no such modules.
    """
    within: list[tuple[str, ...]] = []
    with _running(module) as now:

        def note(probabilities: Tensor) -> Tensor:
            within.append(tuple(now))
            return probabilities

        with AttentionWatch(keep=note) as watch:
            module(example.clone())
    square = [one.shape[-2] == one.shape[-1] for one in watch.found]
    modules = [names for names, among_tokens in zip(within, square, strict=True) if among_tokens]
    for level in zip(*modules, strict=False):  # from the model itself inwards
        if len(set(level)) == len(modules):  # of one attention, the model as a whole
            return level
    raise ValueError(
        f"`model` has {len(modules)} attentions among tokens that are not each in a module of its own, as they are in "
        "a ViT's blocks; take such a model, or another method, such as GradientAttentionRollout"
    )


@contextmanager
def _running(module: nn.Module) -> Iterator[list[str]]:
    """The names of the modules whose forwards are at work, the outermost first, at any moment inside."""
    now: list[str] = []

    def enters(name: str) -> Callable[..., None]:
        return lambda *_: now.append(name)

    def leaves(*_: Any) -> None:
        now.pop()

    handles = []
    try:
        for name, part in module.named_modules():
            handles += [part.register_forward_pre_hook(enters(name)), part.register_forward_hook(leaves)]
        yield now
    finally:
        for handle in handles:
            handle.remove()
