"""The tail plan: a layer's output is replaced, what follows runs again, everything else comes from the kept run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.core.hooks import shadowed
from xai_fast.core.layers import at_layers
from xai_fast.core.prepared import Prepared
from xai_fast.core.shelf import Shelf
from xai_fast.core.verify import difference, row_of
from xai_fast.graph.captured import Captured, own_forwards
from xai_fast.graph.cut import Cut, CutError, expanded, handed
from xai_fast.graph.deadline import REASON, out_of_time
from xai_fast.graph.steps import INPUT, filled

from .closed import Closed, closed_form


@dataclass(frozen=True)
class Kept:
    """What a run of some rows left behind.

    Attributes:
        roots: what the layers returned, in the order of the cut.
        crossing: values that the tail reads beside them.
        rows: how many rows ran.
    """

    roots: dict[int, Tensor]
    crossing: dict[int, Any]
    rows: int

    @property
    def activation(self) -> Tensor:
        """What the one layer returned."""
        (activation,) = self.roots.values()
        return activation


class Tail:
    """What follows one or more layers of a captured model.

    Args:
        captured: the model, recorded on inputs of the shape that will come.
        layers: names of the layers.

    Raises:
        CutError: the graph cannot be cut there.
        ValueError: a layer runs more than once, or not at all.
    """

    def __init__(self, captured: Captured, layers: tuple[str, ...]) -> None:
        self._captured, graph = captured, captured.graph
        self.cut: Cut = captured.cut(layers)
        self._values = [captured.returned_by(layer).value for layer in layers]
        for root in self.cut.roots:
            trait = graph.traits[root]
            if trait.batched != 1:
                raise CutError("the layer does not return one entry per row")
        read = (*self.cut.roots, *self.cut.crossing)
        # It runs once per input. Without normalisation the plain layout is more exact, and gradients behind a ReLU or a
        # maximum turn on which side of a kink an activation falls.
        before = captured.program(self.cut.before, {INPUT}, read, plain=captured.short_sums)
        self._before = captured.repeated(before)
        self._after = captured.repeated(captured.program(self.cut.after, read, graph.results))
        self._differentiable = captured.program(
            self.cut.after, read, tuple({*graph.results, *self._values} - set(read)), plain=True
        )
        self.closed: Closed | None = closed_form(captured, self.cut) if len(self.cut.roots) == 1 else None

    @property
    def linear(self) -> bool:
        """Whether the output is a linear function of the mean over positions, so that gradients need no backward."""
        closed = self.closed
        gaps = self._captured.graph.gradient_gaps
        return closed is not None and closed.mean_only and closed.rest is None and closed.is_output and not gaps

    @property
    def differentiates(self) -> bool:
        """Whether autograd may go through the steps."""
        return not self._captured.graph.gradient_gaps

    def spread(self, by_output: Tensor, kept: Kept) -> Tensor:
        """The gradient (rows, K, C, *s) at the layer of what has the gradient (rows, K, outputs) by the output."""
        assert self.closed is not None
        shape = kept.activation.shape[2:]
        by_channel = by_output @ self.closed.linear.weight.detach() / shape.numel()
        return by_channel.view(*by_channel.shape, *[1] * len(shape)).expand(*by_channel.shape, *shape)

    @property
    def saved(self) -> str:
        """How much of the model a row of the tail skips, for people."""
        every, again = len(self._captured.graph.steps), len(self.cut.after)
        kept = f"{every - again} of {every} steps come from the kept run"
        if self.linear:
            return f"{kept}, gradients need no backward, silenced channels are one product"
        return f"{kept}, silenced channels share the first linear layer" if self.closed is not None else kept

    @torch.no_grad()
    def keep(self, batch: Tensor) -> Kept:
        """Runs everything before the layers on a batch (rows, C, *S)."""
        values = {**self._before.run({INPUT: batch}), INPUT: batch}
        roots = {number: values[number] for number in self.cut.roots}
        return Kept(roots, {number: values[number] for number in self.cut.crossing}, len(batch))

    @torch.no_grad()
    def clean(self, kept: Kept) -> Any:
        """The raw output of the rows that were kept."""
        return self._run({**kept.roots, **kept.crossing}, own=())

    @torch.no_grad()
    def replaced(self, kept: Kept, row: int, activation: Tensor) -> Any:
        """The raw output for one kept row with the layer's output replaced.

        Args:
            kept: of `keep`.
            row: which of its rows.
            activation: (rows, ...) ours to write into.
        """
        graph = self._captured.graph
        crossing = {n: expanded(graph, n, value, row, len(activation)) for n, value in kept.crossing.items()}
        (root,) = self.cut.roots
        return self._run({root: activation, **crossing}, own=(root,))

    def differentiable(self, kept: Kept) -> tuple[Any, list[Tensor]]:
        """The raw output of the kept rows, under autograd from the layers on, and what each layer returned."""
        roots = {number: value.detach().requires_grad_() for number, value in kept.roots.items()}
        given = handed(self.cut, {**roots, **kept.crossing})
        values = {**given, **self._differentiable.run(given), **roots}
        output = filled(self._captured.graph.output, {**self._captured.graph.fixed, **values})
        return output, [values[number] for number in self._values]

    def moved(self, kept: Kept, activation: Tensor, times: int) -> Any:
        """The raw output of the kept rows, that many times over, with the layer's output replaced; under autograd.

        Args:
            kept: of `keep`.
            activation: (times · rows, ...), all kept rows, then all of them again.
            times: how often.
        """
        crossing = {n: _tiled(value, times) if self._has_rows(n) else value for n, value in kept.crossing.items()}
        (root,) = self.cut.roots
        given = handed(self.cut, {root: activation, **crossing})
        graph = self._captured.graph
        return filled(graph.output, {**graph.fixed, **given, **self._differentiable.run(given)})

    def _has_rows(self, number: int) -> bool:
        return bool(self._captured.graph.traits[number].batched)

    def _run(self, values: dict[int, Any], own: tuple[int, ...]) -> Any:
        mine = {number: values.pop(number) for number in own}
        given = {**handed(self.cut, values), **mine}
        graph = self._captured.graph
        return filled(graph.output, {**graph.fixed, **given, **self._after.run(given)})


def _tiled(value: Tensor, times: int) -> Tensor:
    return value.repeat(times, *[1] * (value.ndim - 1)) if times > 1 else value


TAILS: Shelf[tuple[str, ...], Tail | str] = Shelf("tails behind layers")


def tail_of(prepared: Prepared, layers: tuple[str, ...], inputs: Tensor) -> Tail | str:
    """The tail behind these layers for inputs of this shape, checked and kept; or why there is none."""
    shape = tuple(inputs.shape[1:])
    captured = prepared.captured.get(shape)
    if captured is None:
        return prepared.resists or "the model is not captured for inputs of this shape"
    shelves = prepared.shelves(shape)
    if out_of_time() and shelves.get(TAILS, layers) is None:
        return REASON  # a later call may find it
    return shelves.find(TAILS, layers, lambda: _checked(captured, prepared, layers, inputs))


def _checked(captured: Captured, prepared: Prepared, layers: tuple[str, ...], inputs: Tensor) -> Tail | str:
    try:
        tail = Tail(captured, layers)
    except CutError as error:
        return str(error)
    if len(layers) == 1:
        return _differs(tail, prepared, layers, inputs) or tail
    alone = [tail_of(prepared, (layer,), inputs) for layer in layers]
    return next((reason for reason in alone if isinstance(reason, str)), tail)


@torch.no_grad()
def _differs(tail: Tail, prepared: Prepared, layers: tuple[str, ...], inputs: Tensor) -> str | None:
    """Replaces a layer's output in the module itself and in the tail; says where the answers differ."""
    assert isinstance(prepared.module, nn.Module)
    rows = torch.cat(prepared.trial(inputs, prepared.dtype))
    batch = prepared.empty(2, inputs).copy_(rows)
    with shadowed(prepared.module):
        kept = tail.keep(batch.clone(memory_format=torch.preserve_format))
        changed = kept.activation.clone(memory_format=torch.preserve_format)
        # Every second entry along the last axis hidden in one row, the other half in the other: both rows differ.
        changed[0, ..., ::2] = 0
        changed[1, ..., 1::2] = 0
        with own_forwards(prepared.module):
            truth = with_layer(prepared, layers[0], batch, lambda _activation: changed.clone())
        for row in range(2):
            mine = tail.replaced(kept, row, changed[row : row + 1].clone(memory_format=torch.preserve_format))
            reason = difference(row_of(truth, row, 2), row_of(mine, 0, 1), prepared.dtype or batch.dtype)
            if reason is not None:
                return f"the tail does not reproduce the model: {reason}"
        if tail.closed is not None and not _holds(tail, tail.closed, kept, prepared.dtype or batch.dtype):
            tail.closed = None
    return None


def _holds(tail: Tail, closed: Closed, kept: Kept, dtype: torch.dtype) -> bool:
    """Whether the closed form agrees with the tail itself on a few channels."""
    for row in range(kept.rows):
        channels = torch.tensor(sorted({0, closed.channels // 2, closed.channels - 1}))
        count = len(channels)
        changed = kept.activation[row].expand(count, *kept.activation.shape[1:]).clone()
        changed[torch.arange(count), channels] = 0
        truth = tail.replaced(kept, row, changed)
        mine = closed.ablated(kept.activation[row : row + 1], channels)
        if any(difference(row_of(truth, i, count), row_of(mine, i, count), dtype) for i in range(count)):
            return False
    return True


def with_layer(prepared: Prepared, layer: str, batch: Tensor, change: Callable[[Tensor], Tensor]) -> Any:
    """The module's raw output with what a layer returns replaced by `change` of it.

    Raises:
        ValueError: the layer runs more than once, or not at all.
    """
    assert isinstance(prepared.module, nn.Module)
    with at_layers(prepared.module, {layer: change}):
        return prepared.module(batch)
