"""Every call of a module in one forward: what it returned, and the score's gradient there."""

from __future__ import annotations

import functools
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_leaves

from xai_fast.core import autograd
from xai_fast.core.borrowed import seeing_writes
from xai_fast.core.draws import Generators
from xai_fast.core.scores import SCORE_NAMES, find_scores, named_parts
from xai_fast.graph.address import Address

from .alignment import Alignment
from .grids import Reading
from .places import Take, at_layers, first_tensor, with_first
from .sight import Sight

_PYRAMIDS = (dict, OrderedDict, list, tuple)  # and not a library's record of outputs, whose parts may feed nothing


@dataclass(eq=False)
class Seen:
    """One call of a module.

    Attributes:
        path: of the module.
        call: which of its calls, from 1.
        own: what it returned, part of the forward's graph.
        edge: where that begins in the backward, which stays so if `own` is written into; None where nothing does.
        shape: of it.
        maker: path of the module that made the map, which others only pass on.
        parts: paths of the modules that made each of the maps, where it returned several.
        intact: whether nothing has written into it since.
        gradient: of the score by `activation`; None where nothing leads from there to the score, or nobody asked.
        calls: how often the module ran in all.
    """

    path: str
    call: int
    own: Tensor
    edge: GradientEdge | None
    maker: str
    parts: tuple[str, ...]
    shape: torch.Size = field(init=False)
    intact: bool = True
    gradient: Tensor | None = None
    calls: int = 1
    restore: weakref.WeakMethod[Callable[[], None]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.shape = self.own.shape

    @property
    def name(self) -> str:
        """As a caller would write it."""
        return str(Address(self.path, None if self.calls == 1 else self.call))

    @property
    def activation(self) -> Tensor:
        """What it returned, detached."""
        if not self.intact:
            restore = self.restore()
            assert restore is not None, "a call outlives its forward"
            restore()
        return self.own.detach()


class Recorded:
    """One forward of the model, with every call of its modules.

    Little is copied: what was written into later takes a further run where it is asked for.

    Args:
        module: the model.
        example: its input.
        score_of: from what it returns to what layers may matter for; None where that is not asked.
        boxes: whether that is about a detector's boxes, and what it returns says nothing of classes.

    Attributes:
        module, example: as given.
        raw: what it returned, part of the graph.
        seen: the calls in order of completion.
        read: paths of the modules that made the maps which one module took together, as a detector's head does;
            the last one's are last.
        scores: what the output says of classes; None where it only passes features on.
        own: whether a forward without hooks might have answered otherwise: random numbers were drawn, something was
            written into that went on as a copy, or values were taken past autograd.
    """

    def __init__(
        self, module: nn.Module, example: Tensor, score_of: Callable[[Any], Tensor] | None, *, boxes: bool = False
    ) -> None:
        self.module, self.example = module, example
        self._leaf = example.detach().clone().requires_grad_()
        generators, hooks, sight = Generators(), _Hooks(), Sight(self._leaf)
        with torch.enable_grad(), hooks.on(module):
            with sight.on():
                # A model may write into its input, which must not be a leaf then.
                self.raw = module(self._leaf * 1)
            scores, self._sum = None if score_of is None else score_of(self.raw), None
            if scores is not None and scores.requires_grad:
                generator = torch.Generator().manual_seed(0)
                direction = torch.rand(scores.shape, generator=generator).to(scores) + 0.5
                self._sum = (scores * direction).sum()
        self.seen, self.read = hooks.seen, hooks.read
        self.own = hooks.differs or sight.touched or bool(generators.changed())
        self._seen_whole = not sight.lost
        self.scores = None if boxes else _class_scores(self.raw)
        counts: dict[str, int] = {}
        for one in self.seen:
            counts[one.path] = counts.get(one.path, 0) + 1
        # What no gradient leads through counts as asked about.
        self._waiting = {id(one): one.edge for one in self.seen if one.edge is not None}
        for one in self.seen:
            one.calls = counts[one.path]
            one.restore = weakref.WeakMethod(self._run_again)  # a circle would keep the graph until it is collected

    def matters(self, some: Sequence[Seen]) -> list[Seen]:
        """Those of some calls that the score depends on, whose gradients are known from then on.

        A backward that ends at the last few layers costs a fraction of a whole one.
        """
        asked = [one for one in some if id(one) in self._waiting]
        at = [self._waiting.pop(id(one)) for one in asked]
        for one, gradient in zip(asked, self._gradients(at), strict=True):
            one.gradient = gradient
        return [one for one in some if one.gradient is not None and bool(one.gradient.count_nonzero())]

    def only_through(self, one: Seen, others: Sequence[Seen]) -> bool:
        """Whether the score was seen to depend on what a call returned through what others returned alone."""
        after = self.seen[self.seen.index(one) + 1 :]
        later = [other for other in others if other in after and other.intact and other.gradient is not None]
        if one.gradient is None or one.edge is None or not later:
            return False
        way = autograd.grad(
            [other.own for other in later],
            [one.edge],
            [other.gradient for other in later if other.gradient is not None],
            allow_unused=True,
            retain_graph=True,
        )[0]
        return way is not None and torch.allclose(way, one.gradient, rtol=1e-3, atol=1e-5 * float(way.abs().max()))

    @functools.cached_property
    def _alignment(self) -> Alignment:
        return Alignment(self._leaf)

    def reading(self, one: Seen) -> Reading | None:
        """How a map is a grid over the input, where the operators tell that made it, and autograd saw them all."""
        return self._alignment.reading(one.edge, one.shape) if self._seen_whole else None

    @functools.cached_property
    def depends(self) -> bool:
        """Whether the score depends on the input."""
        (own,) = self._gradients([self._leaf])
        return own is not None and bool(own.count_nonzero())

    def _gradients(self, at: Sequence[Tensor | GradientEdge]) -> Sequence[Tensor | None]:
        if self._sum is None or not at:
            return [None] * len(at)
        return autograd.grad(self._sum, at, allow_unused=True, retain_graph=True)

    def answers(self, row: Tensor, layers: Sequence[str]) -> list[Tensor] | None:
        """What the layers returned, part of the graph, if this was a forward of that row (1, C, *S) and shows them."""
        alike = (
            row.shape == self.example.shape and row.stride() == self.example.stride() and row.dtype == self._leaf.dtype
        )
        shown = {one.name: one.own for one in self.seen if one.intact and one.edge is not None}
        if self.own or not alike or not all(layer in shown for layer in layers) or not torch.equal(row, self.example):
            return None
        return [shown[layer] for layer in layers]

    @torch.no_grad()
    def _run_again(self) -> None:
        """Runs the model once more for what calls returned that was written into later."""
        lost = {one.name: one for one in self.seen if not one.intact}

        def taker(one: Seen) -> Take:
            def take(activation: Tensor) -> None:
                one.own, one.intact = activation.clone(), True

            return take

        with at_layers(self.module, {name: taker(one) for name, one in lost.items()}):
            self.module(self.example.clone())


def _class_scores(raw: Any) -> Tensor | None:
    """What the output says of classes; None where it only passes features on."""
    features = not isinstance(raw, Tensor | list | tuple) and not set(SCORE_NAMES) & set(named_parts(raw))
    try:
        return None if features else find_scores(raw).detach()
    except TypeError:
        return None


class _Hooks:
    """Hooks on every module: collect every call in order of completion, and what is written into afterwards.

    What a module passes on as it came goes on as another tensor in the same memory, so that passing on is not making.

    Attributes:
        seen, read: as in `Recorded`.
        differs: whether something was written into that went on as a copy, which whoever holds the other does not see.
    """

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.read: list[tuple[str, ...]] = []
        self.differs = False
        self._parted: set[int] = set()  # where what was copied lies, and its copy
        self._counts: dict[str, int] = {}
        self._makers: dict[int, str] = {}  # of the tensors that were handed on
        self._alive: list[Tensor] = []  # those, also where a call was restored and holds another
        self._given: dict[str, list[dict[int, int]]] = {}  # by path, the versions of what running calls were given
        self._memory: dict[int, list[Seen]] = {}  # which calls returned what lies there

    @contextmanager
    def on(self, module: nn.Module) -> Iterator[None]:
        """They fire inside."""
        handles = []
        for path, part in module.named_modules():
            if path:
                begin, end = functools.partial(self._enter, path), functools.partial(self._record, path)
                handles.append(part.register_forward_pre_hook(begin, with_kwargs=True))
                handles.append(part.register_forward_hook(end, with_kwargs=True))
        try:
            with seeing_writes(self._lose):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, path: str, _layer: nn.Module, args: Any, kwargs: Any) -> None:
        given = {id(leaf): _version(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        self._given.setdefault(path, []).append(given)

    def _record(self, path: str, _layer: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        given, makers = self._given[path].pop(), self._makers
        call = self._counts[path] = self._counts.get(path, 0) + 1
        for several in args:
            if type(several) in _PYRAMIDS:
                taken = tuple(filter(None, (makers.get(id(leaf)) for leaf in tree_leaves(several))))
                if len(set(taken)) > 1:
                    self.read = [*(other for other in self.read if other != taken), taken]
        try:
            first = first_tensor(output)
        except TypeError:
            return None
        maps = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        # The module's own name stands for its first map; others that no module made have none.
        made = [makers.get(id(leaf), path if leaf is first else "") for leaf in maps]
        parts = tuple(filter(None, made)) if type(output) in _PYRAMIDS else ()
        maker, handed = makers.get(id(first), path), _handed(first, given, known=id(first) in makers)
        makers[id(handed)] = maker
        self._alive.append(handed)
        edge = get_gradient_edge(handed) if handed.requires_grad else None
        self.seen.append(Seen(path, call, handed, edge, maker, parts))
        if handed is not first and not handed._is_view():
            self._parted |= {_address(first), _address(handed)}
        self._memory.setdefault(_address(handed), []).append(self.seen[-1])
        return None if handed is first else with_first(output, handed)

    def _lose(self, _func: Any, address: int) -> None:
        self.differs |= address in self._parted
        for one in self._memory.pop(address, ()):
            one.intact = False


def _handed(first: Tensor, given: dict[int, int], *, known: bool) -> Tensor:
    """What goes on in place of what a module returned: itself, if that can be told from all else by autograd.

    Args:
        first: what it returned.
        given: the versions of what it was given when it began, by id.
        known: whether a module inside of it has handed it on already, perhaps to others as well.
    """
    if given.get(id(first), -1) == _version(first):
        return first.view_as(first)  # passed on
    # Writing into a view takes its place in the backward away.
    return first.clone() if known or first.layout is not torch.strided or first._is_view() else first


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
