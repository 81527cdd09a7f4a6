"""The loop: clean inputs first, then every variant in chunks, each answer folded into the map and let go."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from xai_fast.core.indices import both, known, on_device, part, spanning
from xai_fast.core.objective import Objective
from xai_fast.core.prepared import Prepared

from .budgets import budget_for, remember
from .evaluate import Answers, Evaluate, Score, Tails, refuse_flat
from .finite import Finite, NonFiniteError
from .layer_questions import LayerQuestions
from .plan import RowBudget, unless_full
from .progress import Progress
from .recipe import Detailed, Details, Recipe, Variants
from .replay.choose import choose
from .replay.local.boxed import Boxed
from .replay.local.local import Local
from .row_scores import RowScores
from .samplers.clean import Clean
from .settings import Settings
from .spread import Spread, elsewhere
from .store import ModelStore
from .tiers import ran

Take = Callable[[Tensor, Answers], None]


@dataclass(frozen=True)
class Outcome:
    """What one call computed.

    Attributes:
        values: the maps (N, ...), or (N, K, ...) where the target was (N, K), on the device and in the dtype of the
            inputs.
        scores: (N, K) of the clean inputs.
        outputs: (N, n_outputs) all class scores of the clean inputs; None where the model has none.
        evaluations: LongTensor (N,), model rows run per input.
        seconds: wall-clock of the call, preparation excluded.
        details: what belongs to the maps: gaps, errors, snapshots; without an axis K where the target had none.
        layers: that were looked at.
    """

    values: Tensor
    scores: Tensor
    outputs: Tensor | None
    evaluations: Tensor
    seconds: float
    details: Details
    layers: tuple[str, ...]


def run(settings: Settings, store: ModelStore, recipe: Recipe, inputs: Tensor, objective: Objective) -> Outcome:
    """Runs a recipe over inputs (N, C, *S) that were checked; the caller has entered `guard.untouched`."""
    choice = choose(settings, store, recipe, inputs)
    prepared, began = choice.prepared, time.perf_counter()
    known = prepared.outputs_seen(objective.scores_of, tuple(inputs.shape[1:]))
    if known is not None:
        objective.check(known)
    total = len(inputs) + (len(recipe.variants) if recipe.variants is not None else 0)
    others = elsewhere(settings, store, choice, recipe, inputs) if settings.devices is not None else ()
    with ExitStack() as running, Progress(settings.progress, total) as progress:
        for one in (prepared, *others):
            running.enter_context(one.running())
        loop = _Loop(settings, store, prepared, inputs, objective, progress, choice.tails, recipe)
        loop.others = others
        loop.sweep(Clean(prepared.adopt(inputs)), recipe.clean, recipe.reduce.clean, clean=True)
        for rows in recipe.rows():
            loop.vary(recipe, rows, choice.local)
        while recipe.then is not None and (more := recipe.then(torch.cat(loop.scores))) is not None:
            progress.expect(len(more.variants))
            loop.sweep(more.variants, more.evaluate, more.take)
        progress.complete()

    def adopt(maps: Tensor) -> Tensor:
        return (maps if objective.several else maps[:, 0]).to(device=inputs.device, dtype=inputs.dtype)

    values, scores = adopt(recipe.reduce.finish()), torch.cat(loop.scores)
    found = recipe.reduce.details(scores) if isinstance(recipe.reduce, Detailed) else Details()
    details = Details(
        *(number if number is None or objective.several else number[:, 0] for number in (found.gap, found.fit)),
        standard_error=None if found.standard_error is None else adopt(found.standard_error),
        snapshots={count: adopt(maps) for count, maps in found.snapshots.items()},
    )
    if broken := loop.finite.broken(values):
        values[broken] = float("nan")
        raise NonFiniteError(broken, values)
    ran(store, recipe, inputs, choice.tier)
    outputs = torch.cat(loop.outputs) if loop.outputs else None
    return Outcome(values, scores, outputs, loop.evaluations, time.perf_counter() - began, details, recipe.layers)


class _Loop:
    """The state of one call: what has been scored, counted and found broken."""

    def __init__(
        self,
        settings: Settings,
        store: ModelStore,
        prepared: Prepared,
        inputs: Tensor,
        objective: Objective,
        progress: Progress,
        tails: Tails,
        recipe: Recipe,
    ) -> None:
        self._settings, self._store, self._prepared, self._inputs = settings, store, prepared, inputs
        self._objective, self._progress = objective, progress
        self._tails, self._change, self._readings = tails, recipe.change, recipe.readings
        self.scores: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self._outputs: Tensor | None = None  # of the chunk at hand
        self._budgets: dict[tuple[type, bool], RowBudget] = {}
        self.evaluations = torch.zeros(len(inputs), dtype=torch.long)
        self.finite = Finite(len(inputs))
        self.others: tuple[Prepared, ...] = ()  # on other devices, among which variants are shared
        self._device = prepared.device or inputs.device  # where batches are

    def vary(self, recipe: Recipe, rows: Tensor, local: Local | None) -> None:
        """Evaluates variants under the plan of the call; those equal to their input have its answers already."""
        variants, take = recipe.variants, recipe.reduce.update
        assert variants is not None
        if isinstance(recipe.evaluate, Score):
            same = variants.unchanged()[rows]
            self._answered(variants, on_device(rows[same], self._device), take)
            rows = rows[~same]
        if local is None:
            self.sweep(variants, recipe.evaluate, take, rows=rows)
        else:
            self._replay(local, variants, recipe.evaluate, take, rows)

    def _answered(self, variants: Variants, rows: Tensor, take: Take) -> None:
        if len(rows):
            sample = both(variants.sample_of, rows)
            scores = torch.cat(self.scores)
            take(rows, Answers(scores[sample.to(scores.device)]))
            self._progress.advance(len(rows))

    def _replay(self, local: Local, variants: Variants, evaluate: Evaluate, take: Take, rows: Tensor) -> None:
        """Evaluates the variants by re-running only what their boxes reach, and the rest whole if that is slow."""
        left, began = torch.ones(len(variants), dtype=torch.bool), time.perf_counter()
        for some, raw in local.answers(self._prepared, self._inputs, cast("Boxed", variants), rows):
            sample = both(variants.sample_of, some)
            answers = Answers(RowScores(self._objective, sample)(raw))
            self._note(sample, answers, clean=False)
            take(some, answers)
            self._progress.advance(len(some))
            left[known(some)] = False
            if local.pace is not None and local.pace.too_slow(len(some), time.perf_counter() - began):
                break
            began = time.perf_counter()
        self.sweep(variants, evaluate, take, rows=rows[left[rows]])

    def sweep(
        self,
        variants: Variants,
        evaluate: Evaluate,
        take: Take,
        *,
        clean: bool = False,
        rows: Tensor | None = None,
    ) -> None:
        """Evaluates rows of `variants`, all if none are given, chunk by chunk, and hands the answers to `take`."""
        chosen = spanning(0, len(variants), self._device) if rows is None else on_device(rows, self._device)
        flat: list[tuple[Tensor, Tensor]] = []
        # Kept for the call: what rows of one level have taught about speed and memory holds for the next.
        if (budget := self._budgets.get((type(evaluate), clean))) is None:
            budget = budget_for(self._settings, self._prepared, self._inputs, evaluate)
            self._budgets[type(evaluate), clean] = budget
        question = Spread(evaluate, self.others, budget) if self.others and not clean else evaluate

        def ask(rows: Tensor) -> Answers:
            batch = self._prepared.empty(len(rows), self._inputs)
            variants.write(rows, batch)
            sample = both(variants.sample_of, rows)
            score_of = RowScores(self._objective, sample, self._learn if clean else None)
            self._store.run_next(sample)
            return question(self._prepared, batch, score_of, self._tails, rows)

        for rows, answers in _chunks(chosen, budget, ask):
            self._note(both(variants.sample_of, rows), answers, clean=clean, forwards=evaluate.forwards)
            if answers.flat is not None:
                flat.append((answers.flat, part(rows, 0, 1)))
            if self._change is not None and answers.responses:
                answers = self._changed(variants, rows, evaluate.layers, answers)
            take(rows, answers)
            self._progress.advance(len(rows))
        remember(self._settings, self._prepared, self._inputs, evaluate, budget)
        self._refuse_flat(variants, flat)

    def _refuse_flat(self, variants: Variants, flat: list[tuple[Tensor, Tensor]]) -> None:
        """Where a chunk's gradients, of which the first row is given, were zero: raises, if no others can arrive."""
        if not flat or not torch.stack([of_chunk for of_chunk, _ in flat]).any():
            return
        for row in (row for of_chunk, row in flat if of_chunk):
            batch = self._prepared.empty(1, self._inputs)
            variants.write(row, batch)
            sample = both(variants.sample_of, row)
            self._store.run_next(sample)
            refuse_flat(self._prepared, batch, RowScores(self._objective, sample))

    def _changed(self, variants: Variants, rows: Tensor, layers: tuple[str, ...], answers: Answers) -> Answers:
        """The answers with how far the scores fall under every change of every layer, each change one more row."""
        assert self._change is not None
        self._store.saw(layers, self._inputs.shape[1:], [response.activation for response in answers.responses])
        responses = []
        for layer, response in zip(layers, answers.responses, strict=True):
            questions = LayerQuestions(
                self._prepared, layer, self._tails.get((layer,)), self._change, response, self._readings[layer]
            )
            falls = []
            self._progress.expect(len(rows) * questions.count)
            for position in range(len(rows)):
                row = part(rows, position, position + 1)
                table = self._table(questions, variants, row, position, both(variants.sample_of, row))
                falls.append(answers.scores[position, :, None] - table.T)
            responses.append(dataclasses.replace(response, falls=torch.stack(falls), kept=None))
        return dataclasses.replace(answers, responses=tuple(responses))

    def _table(
        self, questions: LayerQuestions, variants: Variants, row: Tensor, position: int, sample: Tensor
    ) -> Tensor:
        """The scores (V, K) of one row under every change of one layer."""

        def as_often(index: Tensor, count: int) -> Tensor:
            return both(lambda one: one.expand(count), index)

        def batch_of(count: int) -> Tensor:
            batch = self._prepared.empty(count, self._inputs)
            variants.write(as_often(row, count), batch)
            return batch

        def ask(numbers: Tensor) -> Answers:
            samples = as_often(sample, len(numbers))
            self._store.run_next(samples)
            return Answers(RowScores(self._objective, samples)(questions(numbers, position, batch_of)))

        budget = budget_for(self._settings, self._prepared, self._inputs, questions)
        table = []
        for numbers, answers in _chunks(spanning(0, questions.count, self._device), budget, ask):
            samples = as_often(sample, len(numbers))
            if questions.closed:
                self.finite.note(samples, answers.finite())
            else:
                self._note(samples, answers, clean=False)
            table.append(answers.scores)
            self._progress.advance(len(numbers))
        remember(self._settings, self._prepared, self._inputs, questions, budget)
        return torch.cat(table)

    def _learn(self, raw: Any, sample: Tensor) -> None:
        outputs = self._objective.class_scores(raw, sample)
        if outputs is not None:
            shape = tuple(self._inputs.shape[1:])
            self._prepared.saw_outputs(self._objective.scores_of, shape, outputs.shape[1])
            self._outputs = outputs

    def _note(self, sample: Tensor, answers: Answers, *, clean: bool, forwards: int = 1) -> None:
        self.evaluations += forwards * torch.bincount(known(sample), minlength=len(self.evaluations))
        self.finite.note(sample, answers.finite())
        if clean:
            self.scores.append(answers.scores)
            self.outputs += [self._outputs] if self._outputs is not None else []
            if sum(map(len, self.scores)) == len(self._inputs):
                self.finite.refuse_if_all()


def _chunks(chosen: Tensor, budget: RowBudget, ask: Callable[[Tensor], Answers]) -> Iterator[tuple[Tensor, Answers]]:
    """Asks about the chosen rows in chunks of the budget's choice, smaller ones where memory runs out."""
    start = 0
    while start < len(chosen):
        rows = part(chosen, start, start + budget.rows(len(chosen) - start))
        began = time.perf_counter()
        answers = _asked(ask, rows)
        if answers is None:
            budget.halve(len(rows))
            continue
        if budget.measuring and answers.scores.is_cuda:
            torch.cuda.synchronize(answers.scores.device)
        budget.record(len(rows), time.perf_counter() - began)
        yield rows, answers
        start += len(rows)


def _asked(ask: Callable[[Tensor], Answers], rows: Tensor) -> Answers | None:
    """The answers, or None where memory ran out and fewer rows may still fit."""
    return ask(rows) if len(rows) == 1 else unless_full(ask, rows)
