"""Every call of a module in one forward: what it returned, and the score's gradient there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from xai_fast.core import autograd
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
        activation: what it returned.
        maker: path of the module that made the map, which others only pass on.
        parts: paths of the modules that made each of the maps, where it returned several.
        gradient: of the score by `activation`; None where nothing leads from there to the score, or nobody asked.
        calls: how often the module ran in all.
    """

    path: str
    call: int
    activation: Tensor
    maker: str
    parts: tuple[str, ...]
    gradient: Tensor | None = None
    calls: int = 1

    @property
    def name(self) -> str:
        """As a caller would write it."""
        return str(Address(self.path, None if self.calls == 1 else self.call))


class Recorded:
    """One forward of the model, with every call of its modules.

    Args:
        module: the model.
        example: its input.
        score_of: from what it returns to what layers may matter for.
        boxes: whether that is about a detector's boxes, and what it returns says nothing of classes.

    Attributes:
        seen: the calls in order of completion.
        read: paths of the modules that made the maps which one module took together, as a detector's head does;
            the last one's are last.
        scores: what the output says of classes; None where it only passes features on.
    """

    def __init__(
        self, module: nn.Module, example: Tensor, score_of: Callable[[Any], Tensor], *, boxes: bool = False
    ) -> None:
        self._leaf = example.detach().clone().requires_grad_()
        with torch.enable_grad(), _hooked(module) as (self.seen, self.read):
            raw = module(self._leaf * 1)  # a model may write into its input, which must not be a leaf then
            scores = score_of(raw)
            self._sum = None
            if scores.requires_grad:
                generator = torch.Generator().manual_seed(0)
                direction = torch.rand(scores.shape, generator=generator).to(scores) + 0.5
                self._sum = (scores * direction).sum()
        self.scores = None if boxes else _class_scores(raw)
        counts: dict[str, int] = {}
        for one in self.seen:
            counts[one.path] = counts.get(one.path, 0) + 1
        # What no gradient leads through counts as asked about.
        self._waiting = {id(one): one.activation for one in self.seen if one.activation.requires_grad}
        for one in self.seen:
            one.calls = counts[one.path]
            one.activation = one.activation.detach()

    def matters(self, some: Sequence[Seen]) -> list[Seen]:
        """Those of some calls that the score depends on, whose gradients are known from then on.

        A backward that ends at the last few layers costs a fraction of a whole one.
        """
        asked = [one for one in some if id(one) in self._waiting]
        at = [self._waiting.pop(id(one)) for one in asked]
        for one, gradient in zip(asked, self._gradients(at), strict=True):
            one.gradient = gradient
        return [one for one in some if one.gradient is not None and bool(one.gradient.count_nonzero())]

    @cached_property
    def depends(self) -> bool:
        """Whether the score depends on the input."""
        (own,) = self._gradients([self._leaf])
        return own is not None and bool(own.count_nonzero())

    def _gradients(self, at: list[Tensor]) -> Sequence[Tensor | None]:
        if self._sum is None or not at:
            return [None] * len(at)
        return autograd.grad(self._sum, at, allow_unused=True, retain_graph=True)


def _class_scores(raw: Any) -> Tensor | None:
    """What the output says of classes; None where it only passes features on."""
    features = not isinstance(raw, Tensor | list | tuple) and not set(SCORE_NAMES) & set(named_parts(raw))
    try:
        return None if features else find_scores(raw).detach()
    except TypeError:
        return None


def _passed_on(output: Tensor, given: Any) -> bool:
    """Whether an output lies in memory that its module was given, or in none that can be told."""
    if output.layout is not torch.strided:
        return True
    memory = output.untyped_storage().data_ptr()
    leaves = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor) and leaf.layout is torch.strided]
    return any(leaf.untyped_storage().data_ptr() == memory for leaf in leaves)


@contextmanager
def _hooked(module: nn.Module) -> Iterator[tuple[list[Seen], list[tuple[str, ...]]]]:
    """Collects every call in order of completion; a copy goes on, so that passing something on is not making it."""
    seen: list[Seen] = []
    read: list[tuple[str, ...]] = []
    counts: dict[str, int] = {}
    makers: dict[int, str] = {}  # of the tensors that were handed on; `seen` keeps none of them from being freed
    alive: list[Tensor] = []

    def recorder(path: str) -> Any:
        def record(_layer: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            counts[path] = counts.get(path, 0) + 1
            for several in args:
                if type(several) in _PYRAMIDS:
                    taken = tuple(filter(None, (makers.get(id(leaf)) for leaf in tree_leaves(several))))
                    if len(set(taken)) > 1:
                        read[:] = [*(other for other in read if other != taken), taken]
            try:
                first = first_tensor(output)
            except TypeError:
                return None
            maps = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
            # The module's own name stands for its first map; others that no module made have none.
            made = [makers.get(id(leaf), path if leaf is first else "") for leaf in maps]
            parts = tuple(filter(None, made)) if type(output) in _PYRAMIDS else ()
            # What it was given may be written into by whoever holds it; what it has made, nobody else holds.
            own = first.clone() if _passed_on(first, (args, kwargs)) else first.view_as(first)
            handed = own.clone()
            makers[id(handed)] = makers.get(id(first), path)
            alive.append(handed)
            seen.append(Seen(path, counts[path], own, makers[id(handed)], parts))
            return with_first(output, handed)

        return record

    handles = [
        part.register_forward_hook(recorder(path), with_kwargs=True) for path, part in module.named_modules() if path
    ]
    try:
        yield seen, read
    finally:
        for handle in handles:
            handle.remove()
