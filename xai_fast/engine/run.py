"""The loop: clean inputs first, then every variant in chunks, each answer folded into the map and let go."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xai_fast.core.objective import Objective
from xai_fast.core.prepared import Prepared, widened

from .evaluate import Answers, Evaluate
from .plan import out_of_memory
from .progress import Progress
from .recipe import Recipe, Variants
from .samplers.clean import Clean

if TYPE_CHECKING:
    from .engine import Engine


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
    """

    values: Tensor
    scores: Tensor
    outputs: Tensor | None
    evaluations: Tensor
    seconds: float


class NonFiniteError(FloatingPointError):
    """The model answered NaN or Inf.

    Attributes:
        samples: the inputs concerned, by their position in the batch.
        values: the maps of the whole batch as they would have been returned, NaN for those inputs: what could be
            computed is not lost. (N, 1) of NaN where no clean input had a finite score, because no variant ran then.
    """

    def __init__(self, samples: list[int], values: Tensor) -> None:
        named = ", ".join(map(str, samples[:8])) + (", ..." if len(samples) > 8 else "")
        plural = "s" if len(samples) > 1 else ""
        super().__init__(
            f"the model answered NaN or Inf for sample{plural} {named} of the batch; look at its outputs there "
            "(an overflow in half precision, a division by zero, an untrained layer). "
            "The maps of the other samples are in this error's `values`."
        )
        self.samples = samples
        self.values = values


def run(engine: Engine, recipe: Recipe, inputs: Tensor, objective: Objective) -> Outcome:
    """Runs a recipe over inputs (N, C, *S) that were checked; the caller has entered `guard.untouched`."""
    prepared = engine.prepared(frozenset(recipe.layers), inputs)
    began = time.perf_counter()
    known = prepared.outputs.get(tuple(inputs.shape[1:]))
    if known is not None:
        objective.check(known)
    total = len(inputs) + (len(recipe.variants) if recipe.variants is not None else 0)
    with prepared.running(), Progress(engine.progress, total) as progress:
        loop = _Loop(engine, prepared, inputs, objective, progress)
        loop.sweep(Clean(prepared.adopt(inputs)), recipe.clean, recipe.reduce.clean, clean=True)
        if recipe.variants is not None:
            loop.sweep(recipe.variants, recipe.evaluate, recipe.reduce.update)
    values = recipe.reduce.finish()
    values = (values if objective.several else values[:, 0]).to(device=inputs.device, dtype=inputs.dtype)
    if loop.broken:
        values[sorted(loop.broken)] = float("nan")
        raise NonFiniteError(sorted(loop.broken), values)
    outputs = torch.cat(loop.outputs) if loop.outputs else None
    return Outcome(values, torch.cat(loop.scores), outputs, loop.evaluations, time.perf_counter() - began)


class _Loop:
    """The state of one call: what has been scored, counted and found broken."""

    def __init__(
        self, engine: Engine, prepared: Prepared, inputs: Tensor, objective: Objective, progress: Progress
    ) -> None:
        self._engine, self._prepared, self._inputs = engine, prepared, inputs
        self._objective, self._progress = objective, progress
        self.scores: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self._outputs: Tensor | None = None  # of the chunk at hand
        self.evaluations = torch.zeros(len(inputs), dtype=torch.long)
        self.broken: set[int] = set()

    def sweep(
        self,
        variants: Variants,
        evaluate: Evaluate,
        take: Callable[[Tensor, Answers], None],
        *,
        clean: bool = False,
    ) -> None:
        """Evaluates every row of `variants`, chunk by chunk, and hands the answers to `take`."""
        budget = self._engine.budget(self._prepared, self._inputs, evaluate)
        start = 0
        while start < len(variants):
            rows = torch.arange(start, start + budget.rows(len(variants) - start))
            sample = variants.sample_of(rows)
            began = time.perf_counter()
            answers = self._ask(variants, rows, evaluate, self._score_of(sample, clean=clean))
            if answers is None:
                budget.halve(len(rows))
                continue
            if budget.measuring and answers.scores.is_cuda:
                torch.cuda.synchronize(answers.scores.device)
            budget.record(len(rows), time.perf_counter() - began)
            self._note(sample, answers, clean=clean)
            take(rows, answers)
            self._progress.advance(len(rows))
            start += len(rows)
        self._engine.remember(self._prepared, self._inputs, evaluate, budget)

    def _ask(
        self, variants: Variants, rows: Tensor, evaluate: Evaluate, score_of: Callable[[Any], Tensor]
    ) -> Answers | None:
        """The answers, or None where memory ran out and fewer rows may still fit."""
        try:
            batch = self._prepared.empty(len(rows), self._inputs)
            variants.write(rows, batch)
            return evaluate(self._prepared, batch, score_of)
        except Exception as error:
            if not out_of_memory(error) or len(rows) == 1:
                raise
        # Outside the handler: the traceback of the error held on to the batch.
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        return None

    def _score_of(self, sample: Tensor, *, clean: bool) -> Callable[[Any], Tensor]:
        def score_of(raw: Any) -> Tensor:
            raw = widened(raw)
            if clean:
                self._learn(raw)
                self._objective.settle(raw, sample)
            return self._objective(raw, sample)

        return score_of

    def _learn(self, raw: Any) -> None:
        outputs = self._objective.class_scores(raw)
        if outputs is not None:
            self._prepared.outputs[tuple(self._inputs.shape[1:])] = outputs.shape[1]
            self._outputs = outputs

    def _note(self, sample: Tensor, answers: Answers, *, clean: bool) -> None:
        self.evaluations += torch.bincount(sample, minlength=len(self.evaluations))
        finite = answers.finite()
        self.broken.update(sample[~finite].tolist())
        if clean:
            self.scores.append(answers.scores)
            self.outputs += [self._outputs] if self._outputs is not None else []
            if len(self.broken) == len(self._inputs):
                raise NonFiniteError(sorted(self.broken), torch.full((len(self._inputs), 1), float("nan")))
