"""The affine step that alone reads a model's input: gradients are summed behind it, and paths may start behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from xai_fast.graph.care import LIMIT, within
from xai_fast.graph.fused import NOTHING, FusedConvolution, FusedLinear
from xai_fast.graph.operation import Kind
from xai_fast.graph.steps import INPUT, Graph

from .gradients import Gradients
from .nodes import Affine, Node, Values
from .rectifier import Mask
from .sums import RowSums


@dataclass(frozen=True)
class Stem:
    """The stem of a model.

    Attributes:
        node: the affine step.
        shape: (C, *S) of the input.
    """

    node: Affine
    shape: tuple[int, ...]

    @torch.no_grad()
    def of(self, batch: Tensor) -> Tensor:
        """What the stem's activation is given, (rows, ...), for a batch (rows, C, *S), which is left as it is."""
        return replace(self._call, activation=NOTHING, care=None)(batch)

    def ordinary(self, y: Tensor) -> bool:
        """Whether `y` is no larger than what follows takes the stem's sums to be."""
        care = self._call.care
        return care is None or within(y, min(care.bound, LIMIT))

    def given(self, y: Tensor) -> Values:
        """The values from which a run starts behind the stem."""
        # Others may ask for the shape of the input.
        nothing = y.new_zeros(()).expand(len(y), *self.shape)
        return {INPUT: nothing, self.node.step.makes: self._call.activation(y)}

    def backward(self, kept: Mask | Tensor | None, gradients: Gradients, sums: RowSums) -> None:
        """The stem's backward after a sum over rows."""
        held = self.node.before_activation(kept, gradients)
        if held is not None and self.node.shape is not None:
            self.node.add_input_gradient(sums(held.tensor), gradients)

    @property
    def _call(self) -> FusedConvolution | FusedLinear:
        call = self.node.step.call
        assert isinstance(call, FusedConvolution | FusedLinear)
        return call


def stem_of(graph: Graph, nodes: Sequence[Node]) -> Stem | None:
    """The stem, where one convolution or linear layer and nothing else reads what is in the input."""
    shape = graph.traits[INPUT].shape
    readers = [step for step in graph.steps if INPUT in step.reads and step.kind is not Kind.NUMBER]
    if len(readers) != 1 or shape is None:
        return None
    for node in nodes:
        if isinstance(node, Affine) and node.reads == (INPUT,):
            return Stem(node, shape[1:]) if isinstance(node.step.call, FusedConvolution | FusedLinear) else None
    return None
