"""Owen values over a hierarchy of boxes: what each box adds, handed down to its positions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from xai_fast.engine.evaluate import Answers, Score
from xai_fast.engine.recipe import Details, Sweep
from xai_fast.engine.samplers.partition import BestFirst, Box, Context, Differing, Node, ShownBoxes, shown_of


class OwenMaps:
    """Splits boxes of every input, each input's best ones first, and lays what boxes add over their positions.

    Its `then` belongs into the recipe: after the baselines' scores it asks wave by wave, for all inputs at once.

    Args:
        inputs: (N, C, *S), on the device of the model.
        baseline: broadcasts to `inputs`.
        splits: boxes of an input that may be split, two evaluations each.
        seed: of the order among boxes that add the same.
        keys: LongTensor (N,), by which that order is drawn for each input; None: 0 for all.
    """

    def __init__(self, inputs: Tensor, baseline: Tensor, *, splits: int, seed: int, keys: Tensor | None) -> None:
        self._inputs, self._baseline = inputs, baseline
        self._splits, self._seed = splits, seed
        self._keys = [0] * len(inputs) if keys is None else keys.tolist()
        space = inputs.shape[2:]
        self._labels = torch.arange(space.numel(), device=inputs.device).view(1, *space).expand(len(inputs), *space)
        self._differs = (inputs != baseline).any(1).cpu().numpy()
        self._trees: list[BestFirst] = []
        self._wave: list[list[Node]] = []
        self._table: Tensor | None = None  # scores (rows, K) of the sweep at hand
        self._starts = self._values = np.empty(0)

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """The clean scores are kept by the loop."""

    def update(self, rows: Tensor, answers: Answers) -> None:
        """A recipe with this reducer has no variants before `then` is asked."""
        raise AssertionError("OwenMaps was handed a variant")

    def then(self, scores: Tensor) -> Sweep | None:
        """The next rows: the baselines themselves, then waves of halves; None where every budget is spent."""
        if self._table is None:
            return self._sweep(torch.arange(len(self._inputs)), [None] * len(self._inputs), scores)
        if not self._trees:
            self._begin(scores)
        else:
            self._take()
        self._wave = [tree.wave() for tree in self._trees]
        rows = torch.tensor([2 * len(nodes) for nodes in self._wave])
        shown = [context for nodes in self._wave for node in nodes for context in shown_of(node)]
        return self._sweep(torch.arange(len(rows)).repeat_interleave(rows), shown, scores) if shown else None

    def finish(self) -> Tensor:
        """(N, K, 1, *S), float64 on the CPU."""
        for n, tree in enumerate(self._trees):
            self._lay(n, tree.rest())
        return torch.from_numpy(self._values)[:, :, None]

    def details(self, scores: Tensor) -> Details:
        """The gaps (N, K), which are those of rounding."""
        sums = torch.from_numpy(self._values).flatten(2).sum(2)
        return Details(gap=sums - (scores.double().cpu() - torch.from_numpy(self._starts)))

    def _sweep(self, sample: Tensor, shown: Sequence[Context], scores: Tensor) -> Sweep:
        table = self._table = torch.empty(len(sample), scores.shape[1], dtype=torch.float64, device=scores.device)

        def take(rows: Tensor, answers: Answers) -> None:
            table[rows] = answers.scores.double()

        return Sweep(ShownBoxes(self._inputs, self._baseline, self._labels, sample, shown), Score(), take)

    def _begin(self, scores: Tensor) -> None:
        """Makes a tree of every input, now that both of its ends are known."""
        assert self._table is not None
        self._starts, ends = self._table.cpu().numpy(), scores.double().cpu().numpy()
        space = self._inputs.shape[2:]
        self._values = np.zeros((*ends.shape, *space))
        everything = tuple((0, extent) for extent in space)
        for n, (start, end, key) in enumerate(zip(self._starts, ends, self._keys, strict=True)):
            root = Node(everything, None, start, end, 1.0)
            differing = Differing(self._differs[n])
            self._trees.append(BestFirst(root, differing, splits=self._splits, seed=self._seed, key=key))
            self._lay(n, self._trees[n].settled())

    def _take(self) -> None:
        """Hands the scores of a wave to the trees that asked."""
        assert self._table is not None
        rows = iter(self._table.cpu().numpy().reshape(-1, 2, self._table.shape[1]))
        for n, (tree, nodes) in enumerate(zip(self._trees, self._wave, strict=True)):
            tree.take(nodes, [next(rows) for _ in nodes])
            self._lay(n, tree.settled())

    def _lay(self, n: int, nodes: Sequence[Node]) -> None:
        """Divides what each box adds, in all its contexts together, by its positions."""
        # Boxes have many contexts each, and with many outputs maps are what takes time.
        added: dict[Box, np.ndarray] = {}
        for node in nodes:
            before = added.get(node.box)
            added[node.box] = node.share if before is None else before + node.share
        for box, share in added.items():
            positions = tuple(slice(*ends) for ends in box)
            each = share / math.prod(stop - start for start, stop in box)
            self._values[n][(slice(None), *positions)] += each.reshape(-1, *[1] * len(positions))
