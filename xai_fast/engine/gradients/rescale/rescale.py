"""Multipliers of differences by the rescale rule: one forward of inputs and references, one explicit backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from xai_fast.core import autograd
from xai_fast.core.prepared import Prepared
from xai_fast.core.shelf import Shelf
from xai_fast.engine.reach import refuse_unreached
from xai_fast.graph.captured import Captured
from xai_fast.graph.cut import CutError
from xai_fast.graph.dataflow import memories_written, memory, on_copies
from xai_fast.graph.program import Program
from xai_fast.graph.steps import INPUT, Step, filled

from .dependence import Dependence
from .hooked import checked
from .linear import HandedOn
from .pairs import Pairs, rows_at
from .rule import Parts, Rule
from .rules import rule_of


class Rescale:
    """A captured model under the rescale rule (Shrikumar et al. 2017, arXiv:1704.02685, section 3.5.1).

    A multiplier says by how much the score differs per difference of an input element: along linear steps it is the
    gradient, at an elementwise nonlinear one the gradient times (difference of outputs) / (difference of inputs).
    Multipliers times differences of the input add up to the difference of the scores.

    Args:
        prepared: what runs the model.
        captured: it, recorded on inputs of the shape that will come.
        layers: names of the layers at which multipliers are asked for; none for the input.

    Raises:
        CutError: no part of the output is reached by steps that all have a rule, or the steps alone do not tell what
            the model computes; the message says why.
        ValueError: a layer runs more than once, or not at all.
    """

    def __init__(self, prepared: Prepared, captured: Captured, layers: tuple[str, ...]) -> None:
        graph = captured.graph
        if graph.gradient_gaps:
            raise CutError("a part of the forward runs without gradients, across which nothing is attributed")
        self.prepared = prepared
        self.dependence = Dependence(graph, [captured.returned_by(layer) for layer in layers])
        self.layers = layers
        self.reasons: dict[int, str] = {}  # why scores may not be computed from a part of the output
        rules = {step.makes: rule_of(step, self.dependence) for step in self.dependence.live}
        for number in self.dependence.scoring:
            steps = self.dependence.leading_to([number])
            found = [rule for step in steps if isinstance(rule := rules[step.makes], str)]
            if not graph.traits[number].batched:
                found.append("rows cannot be told apart in what the model returns")
            self.reasons |= {number: found[0]} if found else {}
        if self.reasons and len(self.reasons) == len(self.dependence.scoring):
            raise CutError(next(iter(self.reasons.values())))
        passed = self.dependence.leading_to({*self.dependence.scoring} - self.reasons.keys())
        self.rules = [(step, rule) for step in passed if isinstance(rule := rules[step.makes], Rule)]
        self.constants = self.dependence.unchanged()
        self._program = self._forward()

    @torch.no_grad()
    def __call__(self, batch: Tensor, references: Tensor) -> Run:
        """Runs inputs and references forward together, each once.

        Args:
            batch: (X, C, *S) inputs.
            references: (B, C, *S).
        """
        rows = self.prepared.empty(len(batch) + len(references), batch)
        rows[: len(batch)], rows[len(batch) :] = batch, references
        return Run(self, self._program.run({INPUT: rows}), len(batch), len(references))

    def _forward(self) -> Program:
        """The forward, in which nothing is written over that is needed again."""
        dependence, graph = self.dependence, self.dependence.graph
        kept = {number for _, rule in self.rules for number in rule.keeps}
        wanted = kept | {*dependence.results.values()} | ({*dependence.roots} if self.layers else set())
        original = {step.makes: step for step in graph.steps}
        rules = {step.makes: rule for step, rule in self.rules}

        def safe(step: Step) -> Step:
            if isinstance(rules.get(step.makes), HandedOn):
                return HandedOn.watched(step, dependence.described(step))
            into = memories_written(graph, step)
            needed = {memory(graph, n) for n in wanted if n < step.makes} if into else set()
            destroys = into & needed and step.call is original[step.makes].call
            if step.operation != original[step.makes].operation and step.makes in rules:
                step = checked(step)
            return on_copies(step) if destroys else step

        steps = [safe(step) for step in dependence.steps]
        return Program(graph, steps, sorted(wanted))


class Run:
    """One forward, and backwards from it for any pairs of its rows.

    Holds what the rules need until it is dropped: about half of all activations of X + B rows.

    Args:
        rescale: whose run it is.
        values: kept values, results and activations, X + B rows each.
        inputs: X.
        references: B.

    Attributes:
        raw: the model's output for the inputs; its floating tensors are leaves that require gradients.
        raw_references: the model's output for the references.
        activations: per layer, the activation of the inputs and of the references.
    """

    def __init__(self, rescale: Rescale, values: dict[int, Any], inputs: int, references: int) -> None:
        self._rescale, self._values, self._inputs = rescale, values, inputs
        dependence = rescale.dependence
        self.raw, self.raw_references, self._leaves = self._outputs(
            lambda value, batched: (value[: inputs * batched], value[inputs * batched :])
        )
        self.activations = [
            (values[root][:inputs], values[root][inputs : inputs + references]) for root in dependence.roots
        ] if rescale.layers else []  # fmt: skip

    def paired(self, of: Tensor, to: Tensor) -> tuple[Any, Any, dict[int, Tensor]]:
        """The model's output for the input of every pair, for its reference, and the leaves (P, ...) of the former.

        For scores whose multipliers depend on both; see `multipliers`.
        """
        return self._outputs(
            lambda value, batched: (rows_at(value, of, batched), rows_at(value, to + self._inputs, batched))
        )

    def _outputs(self, sides: Callable[[Tensor, int], tuple[Tensor, Tensor]]) -> tuple[Any, Any, dict[int, Tensor]]:
        """The model's output for inputs, for references, and the leaves of the former.

        Args:
            sides: takes the rows of both from a value whose rows have so many entries each.
        """
        dependence = self._rescale.dependence
        leaves: dict[int, Tensor] = {}
        of_inputs: dict[int, Any] = {}
        of_references: dict[int, Any] = {}
        for original, number in dependence.results.items():
            here = there = value = self._values[number]
            batched = dependence.graph.traits[number].batched
            if isinstance(value, Tensor) and batched:
                here, there = sides(value, batched)
            if isinstance(here, Tensor) and here.is_floating_point():
                # Two results may be one value, which has one gradient.
                here = leaves.setdefault(number, here.detach().requires_grad_())
            of_inputs[original], of_references[original] = here, there
        return filled(dependence.output, of_inputs), filled(dependence.output, of_references), leaves

    def multipliers(
        self, scores: Tensor, of: Tensor, to: Tensor, leaves: dict[int, Tensor] | None = None
    ) -> list[Tensor]:
        """What each score gains per unit of difference; may be called again with other pairs.

        Args:
            scores: (X, K), computed from `raw` under autograd; (P, K) of `paired`, with its leaves.
            of: (P,) integers, which input each pair has.
            to: (P,) integers, which reference.
            leaves: of `paired`.

        Returns:
            Per layer (P, K, *shape of the activation); without layers one tensor (P, K, C, *S).

        Raises:
            ValueError: the scores do not depend on what the model returns, or on a part of it that has no rule.

        Cost: one backward of P * K rows without weights, and each nonlinear function again for both rows of P pairs.
        """
        rescale, dependence = self._rescale, self._rescale.dependence
        device = next(iter(self._leaves.values())).device
        pairs = Pairs(
            *(dependence, rescale.constants, self._values, self._inputs, of, to, scores.shape[1]),
            device=device, channels_last=rescale.prepared.channels_last,
        )  # fmt: skip
        gradients = self._seeds(scores, pairs, leaves)
        with torch.no_grad():
            return self._backward(gradients, pairs)

    def _seeds(self, scores: Tensor, pairs: Pairs, given: dict[int, Tensor] | None) -> dict[int, Parts]:
        """The gradients of the scores by what the model returns, for the rows of all pairs."""
        if not scores.requires_grad:
            raise ValueError("`target` does not depend differentiably on what the model returns; choose another target")
        scoring = self._rescale.dependence.scoring
        known = self._leaves if given is None else given
        leaves = {number: known[number] for number in scoring if number in known}
        columns: dict[int, list[Tensor]] = {number: [] for number in leaves}
        for k in range(scores.shape[1]):
            found = autograd.grad(scores[:, k].sum(), [*leaves.values()], retain_graph=True, allow_unused=True)
            for (number, leaf), gradient in zip(leaves.items(), found, strict=True):
                if gradient is not None and number in self._rescale.reasons:
                    raise ValueError(f"`target` reads what cannot be explained: {self._rescale.reasons[number]}")
                own = torch.zeros_like(leaf) if gradient is None else gradient
                own = pairs.of_inputs(own, pairs.batched(number)) if given is None else own
                columns[number].append(own.unflatten(0, (pairs.count, -1)))
        passed = leaves.keys() - self._rescale.reasons.keys()
        return {number: [torch.stack(columns[number], 1).flatten(0, 2)] for number in passed}

    def _backward(self, gradients: dict[int, Parts], pairs: Pairs) -> list[Tensor]:
        roots = self._rescale.dependence.roots
        found: dict[int, Parts] = {}
        for step, rule in reversed(self._rescale.rules):
            gradient = gradients.pop(step.makes, None)
            if gradient is None or all(part is None for part in gradient):
                continue
            if step.makes in roots:
                found[step.makes] = gradient
            for number, parts in rule.back(gradient, pairs).items():
                gradients[number] = _sum(gradients.get(number), parts)
        found |= {root: gradients[root] for root in roots if root in gradients}
        return [self._by_pair(found.get(root), pairs) for root in roots]

    def _by_pair(self, gradient: Parts | None, pairs: Pairs) -> Tensor:
        part = gradient[0] if gradient else None
        if part is None:
            refuse_unreached(f"layer {self._rescale.layers[0]!r}" if self._rescale.layers else "the input")
        return part.unflatten(0, (pairs.count, pairs.scores))


def _sum(left: Parts | None, right: Parts) -> Parts:
    if left is None:
        return right
    return [b if a is None else a if b is None else a + b for a, b in zip(left, right, strict=True)]


RESCALES: Shelf[tuple[str, ...], Rescale | str] = Shelf("rescale rules")


def rescale_of(prepared: Prepared, shape: Sequence[int], layers: Sequence[str] = ()) -> Rescale | str:
    """The rescale rule on a prepared model for inputs (C, *S), kept; or why it does not exist, naming the step.

    Runs nothing.

    Raises:
        ValueError: a layer runs more than once, or not at all.
    """
    shape, layers = tuple(shape), tuple(layers)
    captured = prepared.captured.get(shape)
    if captured is None:
        return prepared.resists or "the model is not captured for inputs of this shape"

    def make() -> Rescale | str:
        try:
            return Rescale(prepared, captured, layers)
        except CutError as error:
            return str(error)

    return prepared.shelves(shape).find(RESCALES, layers, make)
