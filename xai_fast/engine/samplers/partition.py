"""A hierarchy of boxes, halved best first: which positions are shown beside which others, until a budget is spent."""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xai_fast.core.indices import beside, known
from xai_fast.core.random import uniforms
from xai_fast.ops import hide_segments

Box = tuple[tuple[int, int], ...]
"""Start and stop along each axis of *S."""

Context = tuple[Box, "Context"] | None
"""Boxes that are shown beside a node: at most one per level of the hierarchy, shared with the node's relatives."""

_TIES = 1024  # numbers of the order among equals that are drawn at once
_PER_NODE = 60  # evaluations of a budget per node of a wave


def halves(box: Box) -> tuple[Box, Box] | None:
    """The longest axis of a box (the first of equals) cut in half, the lower half the smaller; None of one position."""
    extents = [stop - start for start, stop in box]
    axis = extents.index(max(extents))
    if extents[axis] <= 1:
        return None
    (start, stop), before, after = box[axis], box[:axis], box[axis + 1 :]
    middle = start + extents[axis] // 2
    return (*before, (start, middle), *after), (*before, (middle, stop), *after)


def splits_of(shape: Sequence[int]) -> int:
    """How often nodes are split until none has more than one position: about half the square of the positions."""
    return _splits(tuple(sorted(shape)))


@functools.lru_cache(maxsize=4096)
def _splits(extents: tuple[int, ...]) -> int:
    parts = halves(tuple((0, extent) for extent in extents))
    if parts is None:
        return 0
    # Each half exists twice: with the other half shown, and without.
    return 1 + 2 * sum(_splits(tuple(sorted(stop - start for start, stop in part))) for part in parts)


class Node(NamedTuple):
    """A box in a context.

    Attributes:
        box: its positions.
        context: what is shown beside it.
        without: (K,) scores of the context alone.
        whole: (K,) scores of the context and the box.
        weight: the share of all orders of the hierarchy in which the box meets this context.
    """

    box: Box
    context: Context
    without: np.ndarray
    whole: np.ndarray
    weight: float

    @property
    def share(self) -> np.ndarray:
        """(K,) what the box adds to its context, of which its positions get equal parts."""
        return (self.whole - self.without) * self.weight


class Differing:
    """Which boxes hold positions at which an input and its baseline differ.

    Args:
        differs: bool (*S,).
    """

    def __init__(self, differs: np.ndarray) -> None:
        self._sums: np.ndarray | None = None
        if not differs.all():
            self._sums = np.pad(differs.astype(np.int64), [(1, 0)] * differs.ndim)
            for axis in range(differs.ndim):
                self._sums = self._sums.cumsum(axis)

    def any_in(self, box: Box) -> bool:
        """Whether the box holds one; from sums over all boxes that begin at the origin."""
        if self._sums is None:
            return True
        count = 0
        for corner in itertools.product((0, 1), repeat=len(box)):
            sign = -1 if (len(box) - sum(corner)) % 2 else 1
            count += sign * int(self._sums[tuple(ends[end] for ends, end in zip(box, corner, strict=True))])
        return count > 0

    def narrowed(self, box: Box) -> Box:
        """The box of the hierarchy inside `box` that holds all of them and no half that holds none.

        The half that is left out changes nothing, wherever it is shown, so that its sibling meets one context only.
        """
        while (parts := halves(box)) is not None:
            holding = [part for part in parts if self.any_in(part)]
            if len(holding) != 1:
                break
            box = holding[0]
        return box


class BestFirst:
    """The hierarchy of one input, whose nodes are split in the order of what they add, best first.

    A node that is split asks for the scores of its context with either half. Its halves then are nodes themselves, each
    in two contexts (the other half shown or not) with half the weight; together they add what the node added.

    The best nodes are taken several at once, so that forwards are full: one for every 60 evaluations of the budget. One
    after the other, the same nodes would be split, but for those that better ones among the halves of others come
    before until the budget is spent. So that there are next to none, a wave takes no more than the best quarter of the
    queue, which keeps it from nodes that are the best of a few, and half of the splits that are left.

    Args:
        root: all positions, in no context.
        differing: where the input is not its baseline already.
        splits: nodes that may be split, two evaluations each.
        seed: of the order among nodes that add the same.
        key: of the input, by which that order is drawn.
    """

    def __init__(self, root: Node, differing: Differing, *, splits: int, seed: int, key: int) -> None:
        self._differing, self._splits = differing, splits
        self._most = max(1, (2 * splits + 2) // _PER_NODE)
        self._ties = _numbers(seed, key)
        self._queue: list[tuple[float, float, int, Node]] = []
        self._count = itertools.count()
        self._settled: list[Node] = []
        if differing.any_in(root.box):
            self._put([root._replace(box=differing.narrowed(root.box))])

    def wave(self) -> list[Node]:
        """The nodes to split next, which leave the queue; none where it is over."""
        count = min(self._most, -(-len(self._queue) // 4), -(-self._splits // 2))
        self._splits -= count
        return [heapq.heappop(self._queue)[-1] for _ in range(count)]

    def take(self, nodes: Sequence[Node], scores: Sequence[np.ndarray]) -> None:
        """Replaces nodes of a wave by their halves.

        Args:
            nodes: of one wave, all of them.
            scores: of each node (2, K), of its context with the lower half, and with the upper half.
        """
        for node, (with_lower, with_upper) in zip(nodes, scores, strict=True):
            parts = halves(node.box)
            assert parts is not None
            lower, upper = map(self._differing.narrowed, parts)
            context, weight = node.context, node.weight / 2
            self._put(
                [
                    Node(lower, context, node.without, with_lower, weight),
                    Node(upper, context, node.without, with_upper, weight),
                    Node(lower, (upper, context), with_upper, node.whole, weight),
                    Node(upper, (lower, context), with_lower, node.whole, weight),
                ]
            )

    def settled(self) -> list[Node]:
        """The nodes of one position that were found since this was last asked."""
        found, self._settled = self._settled, []
        return found

    def rest(self) -> list[Node]:
        """The nodes that were not split."""
        return [entry[-1] for entry in self._queue]

    def _put(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            largest = float(np.abs(node.whole - node.without).max(initial=0.0)) * node.weight
            if not math.isfinite(largest):
                self._splits = 0  # nothing has an order any more, and the loop will say which input it was
            if halves(node.box) is None:
                self._settled.append(node)
            else:
                heapq.heappush(self._queue, (-largest, next(self._ties), next(self._count), node))


def _numbers(seed: int, key: int) -> Iterator[float]:
    """Uniform numbers that depend on the seed and the key alone, without end."""
    for draw in itertools.count():
        yield from uniforms(seed, torch.tensor([key]), torch.tensor([draw]), _TIES)[0].tolist()


def shown_of(node: Node) -> tuple[Context, Context]:
    """What the two rows of a node show: its context with the lower half, and with the upper half."""
    parts = halves(node.box)
    assert parts is not None
    return (parts[0], node.context), (parts[1], node.context)


@dataclass(frozen=True, eq=False)
class ShownBoxes:
    """Row r is the baseline of input sample[r], on which some boxes of that input are shown.

    Args:
        inputs: (N, C, *S), on the device of the model.
        baseline: broadcasts to `inputs`.
        labels: LongTensor (N, *S), the number of each position.
        sample: LongTensor (R,).
        shown: the boxes of each row.
    """

    inputs: Tensor
    baseline: Tensor
    labels: Tensor
    sample: Tensor
    shown: Sequence[Context]
    change: ClassVar[str] = "everything"

    def __len__(self) -> int:
        return len(self.sample)

    def sample_of(self, rows: Tensor) -> Tensor:
        """As given."""
        return beside(self.sample, rows)[rows]

    def unchanged(self) -> Tensor:
        """Nothing is known to be."""
        return torch.zeros(len(self), dtype=torch.bool)

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Writes the rows; positions are segments of their own, of which the boxes' are kept."""
        kept = self._kept(known(rows)) if rows.is_cpu else beside(self._all_kept, rows)[rows]
        hide_segments(self.inputs, self.baseline, self.labels, self.sample_of(rows), kept, out)

    def _kept(self, rows: Tensor) -> Tensor:
        """BoolTensor (rows, positions): what each row shows."""
        keep = np.zeros((len(rows), *self.inputs.shape[2:]), dtype=bool)
        for positions, row in zip(keep, rows.tolist(), strict=True):
            context = self.shown[row]
            while context is not None:
                box, context = context
                positions[tuple(slice(*ends) for ends in box)] = True
        return torch.from_numpy(keep).flatten(1)

    @functools.cached_property
    def _all_kept(self) -> Tensor:
        """Of all rows, which are those of one wave, so that they go to a device at once."""
        return self._kept(torch.arange(len(self)))
