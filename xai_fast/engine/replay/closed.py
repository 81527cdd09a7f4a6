"""Closed forms of a tail: each channel pooled by itself, one linear layer, and whatever follows that.

With f(A) the pooled features of a layer's output A, channel by channel, setting channel k to zero changes only the
features of k, so the linear layer's output moves by W_k (f_k(0) − f_k(A)): all channels together cost one product.
Where pooling is the mean over positions and nothing else happens, the gradient is W spread evenly over positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.graph.captured import Captured
from xai_fast.graph.cut import Cut, CutError, cut
from xai_fast.graph.operation import Kind
from xai_fast.graph.program import Program
from xai_fast.graph.steps import Graph, Returned, Step, Value, filled

_BY_CHANNEL = (Kind.ELEMENTWISE, Kind.CHANNELWISE, Kind.POOLED)
_POOLING = ("adaptive_avg_pool", "adaptive_max_pool")


@dataclass(eq=False)
class Closed:
    """The closed form of one tail.

    Attributes:
        features: from the layer's output to the features, channel-major.
        linear: the layer behind them.
        rest: from the linear layer's output to the model's; None where that is the output itself.
        mean_only: whether the features are the means over positions of the layer's output.
    """

    graph: Graph
    root: int
    features: Program
    linear: nn.Linear
    pooled: int
    made: int
    rest: Program | None
    mean_only: bool

    @property
    def is_output(self) -> bool:
        """Whether the model returns what the linear layer does, and nothing else."""
        return self.graph.output == Value(self.made)

    @torch.no_grad()
    def ablated(self, activation: Tensor, channels: Tensor) -> Any:
        """The raw output where each of `channels` (rows,) of the layer's output (1, C, ...) is zero in turn."""
        return self.output(self.hidden(self.pool(activation), self.pool(torch.zeros_like(activation)), channels))

    def pool(self, activation: Tensor) -> Tensor:
        """The features (rows, C * q)."""
        # Some of the features' steps may write into what they are given.
        given = {self.root: activation.clone(memory_format=torch.preserve_format)}
        return self.features.run(given)[self.pooled]

    def hidden(self, clean: Tensor, silent: Tensor, channels: Tensor) -> Tensor:
        """The linear layer's output (rows, out) where the features of one channel are those of silence."""
        weight = self.linear.weight
        count = self.channels
        change = (silent - clean).view(count, -1)
        by_channel = weight.view(len(weight), count, -1)
        start = nn.functional.linear(clean, weight, self.linear.bias)
        if change.shape[1] == 1:
            return start + change[channels] * by_channel[:, channels, 0].T
        return start + torch.bmm(change[channels, None], by_channel[:, channels].permute(1, 2, 0))[:, 0]

    @property
    def channels(self) -> int:
        """How many channels the layer's output has."""
        shape = self.graph.traits[self.root].shape
        assert shape is not None
        return shape[1]

    def output(self, hidden: Tensor) -> Any:
        """The raw output from the linear layer's."""
        values = {self.made: hidden}
        if self.rest is not None:
            values.update(self.rest.run({self.made: hidden}))
        return filled(self.graph.output, {**self.graph.fixed, **values})


def closed_form(captured: Captured, around: Cut) -> Closed | None:
    """The closed form of what follows a cut at one layer, where it has one; to be compared with the tail."""
    graph = captured.graph
    (root,) = around.roots
    chain = _chain(graph, around)
    if chain is None:
        return None
    *before, last = chain
    linear = last.module
    assert isinstance(linear, nn.Linear)
    shape = graph.traits[root].shape
    pooled = last.reads[0]
    flat = graph.traits[pooled].shape
    if shape is None or flat is None or len(flat) != 2 or len(shape) < 3 or flat[1] % shape[1]:
        return None
    rest = None
    if graph.results != (last.makes,):
        try:
            behind = cut(graph, [Returned(last.makes, last.makes)])
        except CutError:
            return None
        if behind.crossing or set(graph.results) - {step.makes for step in behind.after} - {last.makes}:
            return None
        rest = captured.program(behind.after, {last.makes}, [n for n in graph.results if n != last.makes])
    means = all(_keeps_means(step, graph) for step in before)
    features = captured.program(before, {root}, [pooled])
    return Closed(graph, root, features, linear, pooled, last.makes, rest, means and flat[1] == shape[1])


def _chain(graph: Graph, around: Cut) -> list[Step] | None:
    """The steps from the layer to the first linear one, where each reads only the one before and keeps channels."""
    (value,) = around.roots
    chain: list[Step] = []
    flat = False
    for step in around.after:
        if step.kind is Kind.NUMBER:
            return None
        if step.reads != (value,) or value in graph.results:
            return None
        chain.append(step)
        if isinstance(step.module, nn.Linear) and step.operation == "linear":
            return chain
        shape = graph.traits[step.makes].shape
        if shape is None or not (_keeps_channels(step, graph) or _flattens(step, graph)):
            return None
        flat = flat or len(shape) == 2
        if flat and step.kind not in (Kind.ELEMENTWISE, Kind.GLOBAL, Kind.SHAPE):
            return None
        value = step.makes
    return None


def _keeps_channels(step: Step, graph: Graph) -> bool:
    return step.kind in _BY_CHANNEL or step.operation.startswith(_POOLING) or _is_spatial_mean(step, graph)


def _is_spatial_mean(step: Step, graph: Graph) -> bool:
    before, after = graph.traits[step.reads[0]].shape, graph.traits[step.makes].shape
    if step.operation != "mean" or before is None or after is None:
        return False
    axes = step.args[1] if len(step.args) > 1 else step.kwargs.get("dim")
    given = {axis % len(before) for axis in (axes if isinstance(axes, list | tuple) else [axes]) if axis is not None}
    return given == set(range(2, len(before))) and "dtype" not in step.kwargs


def _flattens(step: Step, graph: Graph) -> bool:
    """Whether all axes from the channels on become one, in their order."""
    before, after = graph.traits[step.reads[0]].shape, graph.traits[step.makes].shape
    if step.operation not in ("flatten", "view", "reshape", "squeeze") or before is None or after is None:
        return False
    kept = after[:1] == before[:1] and len(after) == 2
    return kept or (step.operation == "squeeze" and after[:2] == before[:2])


def _keeps_means(step: Step, graph: Graph) -> bool:
    """Whether the mean over positions of each channel passes unchanged."""
    if step.operation in ("identity", "dropout", "contiguous") or _flattens(step, graph):
        return True
    before, after = graph.traits[step.reads[0]].shape, graph.traits[step.makes].shape
    assert after is not None
    single = all(extent == 1 for extent in after[2:]) and after != before
    return (step.operation.startswith("adaptive_avg_pool") and single) or _is_spatial_mean(step, graph)
