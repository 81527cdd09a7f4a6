"""The layer that `layer="auto"` means: the deepest map of positions on which the score depends."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.graph.deadline import out_of_time, takes

from .answering import BANDS, CHANNELS_FIRST, coordinates, reading_by_kind, reading_of
from .calls import Recorded, Seen
from .corners import Corners
from .fitting import are_features, could_be_map, is_class_scores, sees_positions, small_parts
from .grids import Reading, Tokens

# Their output repeats or pools what came before, so a map read there shows nothing that the layer before does not.
_PASSED_OVER = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Flatten),
    *(getattr(nn, f"Adaptive{kind}Pool{axes}d") for kind in ("Avg", "Max") for axes in (1, 2, 3)),
)
_ATTENTION = re.compile(r"attention|attn|mha", re.IGNORECASE)
_HEAD = re.compile(r"head|predictor|detect", re.IGNORECASE)
_DEEPEST = (0, 6, 12, 24)  # how many calls the score's gradient is asked for at first, and then
_AT_ONCE = 6  # candidates whose answers are measured in one run, at first
_KEPT = 1 << 25  # elements of theirs that one run may keep, each once per changed band
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # what lies in them is blocks, not the inside of one


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        layers: names, more than one where a detector reads several maps.
        readings: of each.
        record: the forward in which that was seen; None where weights were changed for it.
    """

    layers: tuple[str, ...]
    readings: tuple[Reading, ...]
    record: Recorded | None = None


def choose_layers(
    module: nn.Module, example: Tensor, score_of: Callable[[Any], Tensor], *, ours: bool, boxes: bool = False
) -> Choice:
    """The deepest layer that runs once, that the score depends on, and whose positions answer to those of the input.

    A block is taken before what is inside it, also where its own positions do not answer and those of the block before
    do; a map of features before the class scores that are made of it, and a layer that runs once before one call of
    several. Nothing inside attention is taken. In a transformer that reads a class token that is the last block's input
    norm, because the patches of its output reach nothing. Where several maps of a pyramid are read, it is those on
    which the score depends; all of them where a detector's boxes are asked about, which hang on one each.

    Costs one forward and a backward that ends at the deepest layers, where the operators behind them say how they lie
    over the input; one row more where their answer is plain; 2 + 1 rows per spatial axis where it is less so; else up
    to a whole backward, and 1 + 4 rows per axis for six candidates, the next twelve, and so on.

    Args:
        module: our own copy, or the caller's model under guard.
        example: one row, in the module's dtype.
        score_of: from the raw output to what the layer is to matter for, a tensor of any shape.
        ours: whether it is a copy, whose weights may be changed.
        boxes: whether it is to matter for what a detector finds.

    Raises:
        ValueError: no layer fits; names those that come near.
    """
    began = time.perf_counter()
    record = Recorded(module, example, score_of, boxes=boxes)
    takes(time.perf_counter() - began)
    search = _Search(module, record, example, depends=True)
    choice = (search.read_together() if boxes else None) or search.choice()
    if choice is not None:
        return dataclasses.replace(choice, record=record)
    if not record.depends:
        if ours:
            wake(module)
            record = Recorded(module, example, score_of, boxes=boxes)
        search = _Search(module, record, example, depends=record.depends)
        choice = search.choice()
    choice = choice or search.fallback
    if choice is not None:
        return choice
    near = search.usual or record.seen
    names = ", ".join(f"{one.name!r} {tuple(one.shape[1:])}" for one in near[:-7:-1])
    raise ValueError(
        '`layer` "auto" found no layer that keeps the axes of the input and on which the score depends; '
        f"name one{f': the deepest are {names}' if near else ''}"
    )


class _Search:
    """Looks for the layer among the calls of one forward.

    Args:
        module: the model.
        record: the forward.
        example: its input.
        depends: whether what the score does not depend on is left out.

    Attributes:
        usual: the calls that may have made a map of features, as far as was looked.
        fallback: a map of the class scores.
    """

    def __init__(self, module: nn.Module, record: Recorded, example: Tensor, *, depends: bool) -> None:
        self._module, self._record, self._example, self._depends = module, record, example, depends
        self.usual: list[Seen] = []
        self.fallback: Choice | None = None
        self._inner: Choice | None = None  # the deepest inside a block whose own positions do not answer
        seen = record.seen
        # Queries, keys and values are no map of the block's.
        self._inside = small_parts(module, _ATTENTION, itself=False)
        self._small = small_parts(module, re.compile(""), itself=True)
        kinds = {path for path, part in module.named_modules() if isinstance(part, CHANNELS_FIRST)}
        self._plain = {tuple(one.shape[1:]) for one in seen if one.path in kinds}
        self._at_once = _AT_ONCE
        self._answered: set[str] = set()  # paths of calls that could be read, outside of blocks that could not
        stream = [one for one in seen if one.path not in self._inside and len(one.shape) == 3]
        self._widths = {one.shape[1]: one.shape[2] for one in stream}

    def choice(self) -> Choice | None:
        """The deepest that fits, or None."""
        cells = torch.Size()
        for one, reading in self._features():
            choice, extents = Choice((one.name,), (reading,)), reading(one.activation).shape[2:]
            if self._inside_silent_block(one):
                self._answered.remove(one.path)  # so that what lies inside of it is seen to as well
                self._inner, cells = (self._inner, cells) if self._inner else (choice, extents)
                continue
            if self._inner is not None and extents != cells:
                return self._inner  # the map of another stage says less than a part of this one's
            return self._pyramid(one) or choice
        return self._inner

    def _features(self) -> Iterator[tuple[Seen, Reading]]:
        """The candidates whose positions the score depends on, without class scores, which `fallback` keeps."""
        classes, deepest = 0, list[tuple[Seen, Reading]]()
        for one, reading in self._candidates():
            if reading(one.activation).shape[2:].numel() > 1:
                self._answered.add(one.path)
            if not sees_positions(one, reading, depends=self._depends):
                continue
            if isinstance(reading, Tokens) and one.shape[2] != self._widths[one.shape[1]]:
                continue  # inside a block tokens are wider; the stream has one width
            width = reading(one.activation).shape[1]
            if width == classes or is_class_scores(one, reading, self._record.scores):
                # What they are rectified or scaled from are scores as well.
                classes, deepest = width, deepest or [(one, reading)]
                self.fallback = Choice((deepest[0][0].name,), (deepest[0][1],))
                continue
            before = self._record.seen[: self._record.seen.index(one)]
            if deepest and are_features(self._record.scores, deepest[0][0], before):
                yield from deepest
            yield one, reading

    def _inside_silent_block(self, one: Seen) -> bool:
        """Whether the module around a call is a block whose own positions were looked at and do not answer."""
        around = one.path.rpartition(".")[0]
        while around and isinstance(self._module.get_submodule(around), _CONTAINERS):
            around = around.rpartition(".")[0]
        looked = any(other.path == around and other.calls == 1 and self._may_be_map(other) for other in self.usual)
        return looked and around not in self._answered and around in self._small

    def _candidates(self) -> Iterator[tuple[Seen, Reading]]:
        """Calls that may be meant, the deepest first, and those of modules that run once before the others."""
        possible = self._possible()
        for some in ([one for one in possible if one.calls == 1], [one for one in possible if one.calls > 1]):
            some.reverse()
            # Mostly the answer lies among the last few layers, and a backward to those is short.
            for start, end in zip(_DEEPEST, (*_DEEPEST[1:], None), strict=True):
                few = some[start:end]
                usual = self._record.matters(few) if self._depends else few
                self.usual = usual[::-1] + self.usual
                yield from self._answering(usual)

    def _possible(self) -> list[Seen]:
        """Calls that returned something with positions, outside of heads that return boxes."""
        passed_over = {path for path, part in self._module.named_modules() if isinstance(part, _PASSED_OVER)}
        found = [
            one for one in self._record.seen
            if one.path not in self._inside | passed_over and len(one.shape) >= 3
            and one.shape[0] == len(self._example)
        ]  # fmt: skip
        # What returns boxes makes them in heads, level by level; the features are what those read.
        heads = small_parts(self._module, _HEAD, itself=True) if self._record.scores is None else set()
        features = [one for one in found if one.path not in heads]
        return features if not heads or not self._depends or self._record.matters(features) else found

    def _answering(self, some: Sequence[Seen]) -> Iterator[tuple[Seen, Reading]]:
        """The calls whose positions answer to the input, in the order given, measured a few at a time."""
        start, changes = 0, 1 + BANDS * (self._example.ndim - 2)
        while start < len(some):
            if start and out_of_time():
                if self._inner is not None:
                    return
                behind = f"found no map of positions behind {some[start].name!r} in the time that it may take"
                raise ValueError(f'`layer` "auto" {behind}; name a layer')
            few, kept = [], 0
            for one in some[start : start + self._at_once]:
                kept += changes * one.shape.numel()
                if len(few) >= _AT_ONCE and kept > _KEPT:
                    break
                few.append(one)
            yield from self._measured(few)
            # Where attention has mixed everything for many blocks, going back by a few at a time takes long.
            start, self._at_once = start + len(few), 2 * self._at_once

    def _measured(self, few: Sequence[Seen]) -> Iterator[tuple[Seen, Reading]]:
        names = {one.name: one for one in few if self._may_be_map(one)}
        whole: dict[bool, dict[str, Tensor]] = {}
        # What was written into later takes a forward to bring back, and is seldom what is meant.
        lost = [one for one in names.values() if not one.intact]
        corners = [self._corners([one for one in names.values() if one not in lost])]

        def measured(name: str, *, around: bool) -> Reading | None:
            if around not in whole:
                whole[around] = coordinates(self._module, tuple(names), self._example, around=around)
            return reading_of(whole[around][name]) if name in whole[around] else None

        for name, one in names.items():
            coarse = reading_by_kind(one.shape[1:], self._plain, self._example.shape[2:])
            if not one.intact:
                corners.append(self._corners(lost))
            told = self._record.reading(one)
            plain = told or next((reading for each in corners if (reading := each.read(name)) is not None), None)
            reading = plain or (None if any(each.contradict(name, coarse) for each in corners) else coarse)
            reading = reading or measured(name, around=False)
            if reading is None and could_be_map(one, self._example):
                reading = measured(name, around=True)
            if reading is not None:
                yield one, reading

    def _corners(self, some: Sequence[Seen]) -> Corners:
        return Corners(self._module, {one.name: one.activation for one in some}, self._example, plain=self._plain)

    def _may_be_map(self, one: Seen) -> bool:
        """Not where the score reads a single one of several tokens."""
        gradient = one.gradient
        if gradient is None or gradient.ndim != 3 or self._example.ndim == 3:
            return True
        return int(gradient.count_nonzero(2).count_nonzero()) > len(gradient)

    def read_together(self) -> Choice | None:
        """The maps that the last module took together of those that did, on one of which at least the score depends."""
        for taken in reversed(self._record.read):
            makers = self._makers(taken)
            if len(makers) < 2 or not self._record.matters(makers):
                continue
            fitting = [
                (other, reading) for other, reading in self._answering(makers)
                if reading(other.activation).shape[2:].numel() > 1
            ]  # fmt: skip
            if len(fitting) > 1:
                return _of_several(fitting)
        return None

    def _pyramid(self, one: Seen) -> Choice | None:
        """The maps that a module returns together, each by the layer that makes it; None where it returns one."""
        makers = [other for other in self._makers(one.parts) if len(other.shape) == len(one.shape)]
        if len(makers) < 2:
            return None
        fitting = [
            (other, reading)
            for other, reading in self._answering(self._record.matters(makers) if self._depends else makers)
            if sees_positions(other, reading, depends=self._depends)
        ]
        # What a stage was before it halved its map is handed out beside that, and nobody else reads it.
        read = [each for each in fitting if not self._record.only_through(each[0], [other for other, _ in fitting])]
        return _of_several(read) if len(read) > 1 else None

    def _makers(self, paths: Sequence[str]) -> list[Seen]:
        """The calls that made several maps; of those that pass one on as it came the outermost, a block."""
        if len(set(paths)) < 2:
            return []
        fitting = [one for one in self._possible() if one.calls == 1 and len(one.parts) < 2]
        makers = {one.maker: one for one in fitting if one.maker in paths}
        return [makers[path] for path in dict.fromkeys(paths) if path in makers]


def _of_several(fitting: Sequence[tuple[Seen, Reading]]) -> Choice:
    return Choice(tuple(one.name for one, _ in fitting), tuple(reading for _, reading in fitting))


@torch.no_grad()
def wake(module: nn.Module) -> None:
    """Gives weights that are zero throughout, as a fresh head's or residual branch's may be, some value."""
    generator = torch.Generator().manual_seed(0)
    for weight in module.parameters():
        if weight.is_floating_point() and not weight.count_nonzero():
            # In memory of its own: a copy may borrow the caller's.
            weight.data = (0.02 * torch.randn(weight.shape, generator=generator)).to(weight)
