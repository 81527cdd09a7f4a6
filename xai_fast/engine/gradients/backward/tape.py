"""The explicit backward of a captured model: what it keeps of a forward, and the gradients that it makes of that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from xai_fast.core import autograd
from xai_fast.core.prepared import Prepared
from xai_fast.core.shelf import Shelf
from xai_fast.engine.reach import refuse_unreached
from xai_fast.graph import care
from xai_fast.graph.captured import Captured
from xai_fast.graph.cut import CutError
from xai_fast.graph.operation import Kind
from xai_fast.graph.steps import INPUT, filled

from .gradients import Gradients, Held
from .nodes import Affine, Values
from .plan import Plan, plan_of
from .recorded import as_leaves
from .rectifier import Rule
from .sums import RowSums


class Backward:
    """A captured model with an explicit backward. Call it with a batch; the run that comes back gives gradients.

    Weights get no gradients, and what a run keeps is let go of as its last backward uses it up.

    Args:
        captured: the model, recorded on inputs of the shape that will come.
        layers: names of the layers at whose outputs gradients are asked for; none for the input.
        rule: of its ReLUs, see `rectifier.passed`.

    Attributes:
        layers: as given.
        first: the node of the one affine layer that alone reads the input, where gradients by the input are asked for.

    Raises:
        CutError, ValueError: as `plan_of`.
    """

    def __init__(self, captured: Captured, layers: tuple[str, ...], rule: Rule) -> None:
        self.layers, self.graph = layers, captured.graph
        self.plan: Plan = plan_of(captured, layers, rule)
        self.first = None if layers else self._first_layer()
        self._dead = self._last_uses()

    @property
    def rectifiers(self) -> int:
        """How many ReLUs the rule meets; those inside modules that run as a whole are counted once they have run."""
        return sum(node.rectifiers for node in self.plan.nodes)

    def __call__(self, batch: Tensor) -> Run:
        """Runs a batch (rows, C, *S), ours to use up, in the model's dtype, device and layout."""
        kept: list[Any] = []
        with torch.no_grad(), care.run():
            values: Values = {**self.graph.fixed, INPUT: batch, **self.plan.prefix.run({INPUT: batch})}
            for node, dead in zip(self.plan.nodes, self._dead, strict=True):
                kept.append(node.forward(values))
                for number in dead:
                    values.pop(number, None)
        return Run(self, values, kept)

    def _first_layer(self) -> Affine | None:
        """The node of a convolution or linear layer, where that and nothing else reads what is in the input."""
        readers = [step for step in self.graph.steps if INPUT in step.reads and step.kind is not Kind.NUMBER]
        found = (node for node in self.plan.nodes if isinstance(node, Affine) and node.reads == (INPUT,))
        return next(found, None) if len(readers) == 1 else None

    def _last_uses(self) -> list[set[int]]:
        """Per node, the values that nobody reads after it."""
        needed = {*self.plan.roots[: len(self.layers)], *self.plan.results.values()}
        dead: list[set[int]] = []
        for node in reversed(self.plan.nodes):
            used = {*node.reads, *node.makes} - needed
            dead.append(used)
            needed |= used
        return dead[::-1]


class Run:
    """What a forward left behind.

    Attributes:
        raw: the model's raw output; its floating tensors are leaves that require gradients.
        activations: what each of the layers returned, in order.
    """

    def __init__(self, backward: Backward, values: Mapping[int, Any], kept: list[Any]) -> None:
        plan = backward.plan
        self._backward, self._kept = backward, kept
        self.activations: list[Tensor] = [values[number] for number in plan.roots] if backward.layers else []
        self._leaves: list[tuple[int, int, Tensor]] = []
        results = {number: as_leaves(values[name], name, self._leaves) for number, name in plan.results.items()}
        self.raw: Any = filled(backward.graph.output, {**backward.graph.fixed, **results})

    def gradients(self, scores: Tensor, weight: Tensor | None = None, group: Tensor | None = None) -> list[Tensor]:
        """The gradients of the scores; to be asked for once, because what the run kept is used up.

        Args:
            scores: (rows, K), computed from `raw` under autograd.
            weight: (rows,) factors of the rows, whose gradients by the input are then summed up within groups.
            group: LongTensor (rows,) which group a row belongs to, from 0, never decreasing.

        Returns:
            One tensor (rows, K, ...) per layer, or a single one by the input, (rows, K, C, *S), or (groups, K, C, *S).
            The first layer, where nothing else reads the input, then runs backward once per group and not once per row.

        Raises:
            ValueError: the scores do not depend differentiably on the raw output, or that not on the input or a layer.
        """
        if not scores.requires_grad:
            refuse_unreached("the input or layer")
        sums = RowSums(weight, group) if weight is not None and group is not None else None
        columns = []
        for k in range(scores.shape[1]):
            last = k + 1 == scores.shape[1]
            columns.append(self._sweep(self._seeds(scores, k, last=last), sums, last=last))
        return [torch.stack(parts, dim=1) for parts in zip(*columns, strict=True)]

    def _seeds(self, scores: Tensor, k: int, *, last: bool) -> Iterator[tuple[int, int, Tensor]]:
        """The gradients of one column of the scores by the raw output: (value, part of it, gradient)."""
        column = torch.zeros_like(scores)
        column[:, k] = 1
        leaves = [leaf for *_, leaf in self._leaves]
        found = autograd.grad(scores, leaves, column, retain_graph=not last, allow_unused=True)
        for (value, part, _), gradient in zip(self._leaves, found, strict=True):
            if gradient is not None:
                yield value, part, gradient

    @torch.no_grad()
    def _sweep(self, seeds: Iterator[tuple[int, int, Tensor]], sums: RowSums | None, *, last: bool) -> list[Tensor]:
        """One backward over what was kept: a gradient per root."""
        plan, first = self._backward.plan, self._backward.first
        gradients = Gradients(plan.roots)
        for value, part, seed in seeds:
            gradients.add(value, Held(seed, own=False), part)
        for position in reversed(range(len(plan.nodes))):
            node, kept = plan.nodes[position], self._kept[position]
            if last:
                self._kept[position] = None
            if sums is not None and first is not None and node is first:
                first.backward_of_sums(kept, gradients, sums)
            else:
                node.backward(kept, gradients, last=last)
            del kept
        found = [self._found(root, gradients) for root in plan.roots]
        return found if sums is None or first is not None else [sums(gradient) for gradient in found]

    def _found(self, root: int, gradients: Gradients) -> Tensor:
        """The gradient at a root."""
        gradients.take(root)
        found = gradients.found.get(root)
        if found is None:
            layers = self._backward.layers
            refuse_unreached(f"layer {layers[self._backward.plan.roots.index(root)]!r}" if layers else "the input")
        return found


BACKWARDS: Shelf[tuple[tuple[str, ...], Rule], Backward | str] = Shelf("backward passes")


def backward_of(
    prepared: Prepared, shape: tuple[int, ...], layers: tuple[str, ...] = (), rule: Rule = "gradient"
) -> Backward | str:
    """The explicit backward of a prepared model, kept with it; or why there is none.

    Args:
        prepared: the model.
        shape: (C, *S) of its inputs.
        layers: names of the layers at whose outputs gradients are asked for; none for the input.
        rule: of its ReLUs, see `rectifier.passed`.

    Raises:
        ValueError: a layer runs more than once, or not at all.
    """
    captured = prepared.captured.get(shape)
    if captured is None:
        return prepared.resists or "the model is not captured for inputs of this shape"
    if captured.graph.gradient_gaps:
        return "a part of the forward runs without gradients"
    if rule == "gradient" and not captured.fuses:
        return "nothing is fused here, so that autograd is as fast"

    def make() -> Backward | str:
        try:
            return Backward(captured, layers, rule)
        except CutError as error:
            return str(error)

    return prepared.shelves(shape).find(BACKWARDS, (layers, rule), make)
