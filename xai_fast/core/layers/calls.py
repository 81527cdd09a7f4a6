"""Every call of a module in one forward: what it returned, and the score's gradient there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from xai_fast.core.scores import SCORE_NAMES, find_scores, named_parts
from xai_fast.graph.address import Address

from .places import first_tensor, with_first

_PYRAMIDS = (dict, OrderedDict, list, tuple)  # and not a library's record of outputs, whose parts may feed nothing


@dataclass(eq=False)
class Seen:
    """One call of a module.

    Attributes:
        path: of the module.
        call: which of its calls, from 1.
        activation: what it returned, a tensor of its own under autograd.
        parts: paths of the modules that made each of the maps, where it returned several.
        gradient: of the score by `activation`; None where nothing leads from there to the score.
        calls: how often the module ran in all.
    """

    path: str
    call: int
    activation: Tensor
    parts: tuple[str, ...]
    gradient: Tensor | None = None
    calls: int = 1

    @property
    def name(self) -> str:
        """As a caller would write it."""
        return str(Address(self.path, None if self.calls == 1 else self.call))


def recorded(
    module: nn.Module, example: Tensor, score_of: Callable[[Any], Tensor]
) -> tuple[list[Seen], Tensor | None, bool]:
    """Every call with the score's gradient at what it returned; the class scores, if any; if the input matters."""
    leaf = example.detach().clone().requires_grad_()
    depends = False
    with torch.enable_grad(), _hooked(module) as seen:
        raw = module(leaf * 1)  # a model may write into its input, which must not be a leaf then
        scores = score_of(raw)
        counts: dict[str, int] = {}
        for one in seen:
            counts[one.path] = counts.get(one.path, 0) + 1
        for one in seen:
            one.calls = counts[one.path]
        if scores.requires_grad:
            generator = torch.Generator().manual_seed(0)
            direction = torch.rand(scores.shape, generator=generator).to(scores) + 0.5
            watched = [one for one in seen if one.activation.requires_grad]
            at = [leaf, *(one.activation for one in watched)]
            own, *gradients = torch.autograd.grad((scores * direction).sum(), at, allow_unused=True)
            depends = own is not None and bool(own.count_nonzero())
            for one, gradient in zip(watched, gradients, strict=True):
                one.gradient = gradient
    for one in seen:
        one.activation = one.activation.detach()
    return seen, _class_scores(raw), depends


def _class_scores(raw: Any) -> Tensor | None:
    """What the output says of classes; None where it only passes features on."""
    features = not isinstance(raw, Tensor | list | tuple) and not set(SCORE_NAMES) & set(named_parts(raw))
    try:
        return None if features else find_scores(raw).detach()
    except TypeError:
        return None


@contextmanager
def _hooked(module: nn.Module) -> Iterator[list[Seen]]:
    """Collects every call in order of completion; a copy goes on, so that passing something on is not making it."""
    seen: list[Seen] = []
    counts: dict[str, int] = {}
    makers: dict[int, str] = {}  # of the tensors that were handed on; `seen` keeps none of them from being freed
    alive: list[Tensor] = []

    def recorder(path: str) -> Any:
        def record(_layer: nn.Module, _args: Any, output: Any) -> Any:
            counts[path] = counts.get(path, 0) + 1
            try:
                first = first_tensor(output)
            except TypeError:
                return None
            maps = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
            # The module's own name stands for its first map; others that no module made have none.
            made = [makers.get(id(leaf), path if leaf is first else "") for leaf in maps]
            parts = tuple(filter(None, made)) if type(output) in _PYRAMIDS else ()
            own = first.clone()
            handed = own.clone()
            makers[id(handed)] = makers.get(id(first), path)
            alive.append(handed)
            seen.append(Seen(path, counts[path], own, parts))
            return with_first(output, handed)

        return record

    handles = [part.register_forward_hook(recorder(path)) for path, part in module.named_modules() if path]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
