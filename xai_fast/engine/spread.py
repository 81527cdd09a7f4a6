"""Rows on several devices: copies of the prepared model take chunks of variants in turn, and hand their answers home.

Variants are written where samplers and reducers are, on the model's own device; a chunk goes over as a whole, and comes
back as scores and gradients. The host waits for none of it, so the devices compute side by side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import cycle
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xai_fast.core.arguments import Arguments
from xai_fast.core.copies import copied
from xai_fast.core.indices import on_device
from xai_fast.core.memory import out_of_memory
from xai_fast.core.prepared import Prepared, each_tensor

from .devices import checked_devices
from .evaluate import Answers, Evaluate, InputGradient, Score
from .evaluate.answers import ScoreOf, Tails
from .plan import RowBudget
from .recipe import Recipe
from .settings import Settings
from .store import ModelStore

if TYPE_CHECKING:
    from .replay.choose import Choice


class Spread:
    """A question that several devices answer in turn.

    Args:
        question: about scores or gradients by the input.
        others: the model prepared on the further devices.
        budget: that times chunks, at first, on the model's own device alone.
    """

    def __init__(self, question: Evaluate, others: tuple[Prepared, ...], budget: RowBudget) -> None:
        self._question, self._budget = question, budget
        self._turns: Iterator[Prepared | None] = cycle((None, *others))

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """As of the question; everything in the answers is on the batch's device."""
        other = None if self._budget.measuring else next(self._turns)
        if other is None or other.device is None:
            return self._question(prepared, batch, score_of, tails, rows)
        home, there = batch.device, other.device
        with torch.cuda.device(there):
            away = batch.to(there, non_blocking=True)
            answers = self._question(other, away, _AtHome(score_of, home), tails, on_device(rows, there))
        return _moved(answers, home)


class _AtHome:
    """Reads scores from raw outputs on another device, after they were brought home, where the targets are."""

    def __init__(self, score_of: ScoreOf, home: torch.device) -> None:
        self._score_of, self._home = score_of, home

    def __call__(self, raw: Any) -> Tensor:
        """(rows, K) at home."""
        return self._score_of(self._brought(raw))

    def repeated(self, times: int) -> ScoreOf:
        """See `ScoreOf`."""
        return _AtHome(self._score_of.repeated(times), self._home)

    @property
    def of_first(self) -> ScoreOf:
        """See `ScoreOf`."""
        return _AtHome(self._score_of.of_first, self._home)

    @property
    def rescales(self) -> bool:
        """See `ScoreOf`."""
        return self._score_of.rescales

    def rescaled(self, raw: Any, references: Any) -> Tensor:
        """See `ScoreOf`."""
        return self._score_of.rescaled(self._brought(raw), self._brought(references))

    def columns(self, raw: Any) -> Tensor | None:
        """See `ScoreOf`."""
        return self._score_of.columns(self._brought(raw))

    def _brought(self, raw: Any) -> Any:
        return each_tensor(raw, lambda leaf: leaf.to(self._home, non_blocking=True))


def elsewhere(
    settings: Settings, store: ModelStore, choice: Choice, recipe: Recipe, inputs: Tensor
) -> tuple[Prepared, ...]:
    """The model prepared on the further devices that the user names; none, where a call runs on its own alone.

    Raises:
        ValueError: the model's own device is not among those that were named.
    """
    found = shared_among(settings, store, choice, recipe, inputs)
    return () if isinstance(found, str) else found


def shared_among(
    settings: Settings, store: ModelStore, choice: Choice, recipe: Recipe, inputs: Tensor
) -> tuple[Prepared, ...] | str:
    """As `elsewhere`, but why, where a call runs on the model's own device alone."""
    prepared = choice.prepared
    home = prepared.device or inputs.device
    named = checked_devices(settings.devices)
    if home not in named:
        came = ", ".join(map(str, named))
        raise ValueError(f"`devices` came as {came}, and the model is on {home}; name its own device among them")
    reasons = {
        "there are no variants to share": recipe.variants is None,
        f"the {choice.plan} plan keeps to the model's own device": choice.plan != "dense",
        "the method asks for more than scores and gradients by the input": bool(recipe.layers)
        or not isinstance(recipe.evaluate, Score | InputGradient),
        "the model takes `args` or `kwargs`": bool(settings.args or settings.kwargs),
        "only copies of a prepared model, whose rows run together, can run elsewhere": not prepared.copied
        or prepared.alone
        or prepared.borrows,
    }
    if (reason := next((reason for reason, holds in reasons.items() if holds), None)) is not None:
        return reason
    others: list[Prepared] = []
    for device in named:
        if device == home:
            continue
        other = _prepared_on(device, settings, store, recipe, inputs)
        if isinstance(other, str):
            return other
        if (other.dtype, other.channels_last, other.alone) != (prepared.dtype, prepared.channels_last, False):
            return f"on {device} the model was prepared in another way"
        others.append(other)
    return tuple(others)


def _prepared_on(
    device: torch.device, settings: Settings, store: ModelStore, recipe: Recipe, inputs: Tensor
) -> Prepared | str:
    """The model prepared, and verified, on another device, where its memory has its own bounds."""
    stores = store.current().elsewhere
    try:
        if device not in stores:
            assert isinstance(store.model, nn.Module)
            twin = copied(store.model).to(device)
            arguments = Arguments((), {})
            stores[device] = ModelStore(twin, frozen=True, limit=settings.memory_limit, arguments=arguments)
        there = stores[device]
        with torch.cuda.device(device), there.turn(len(inputs), deterministic=settings.deterministic):
            return there.prepare(settings, frozenset(recipe.unfolded), inputs.to(device))
    except Exception as error:
        if not out_of_memory(error):
            raise
        return f"memory of {device} cannot hold a copy of the model"


def _moved(answers: Answers, home: torch.device) -> Answers:
    """Answers to questions without layers, all of them at home."""

    def moved(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(home, non_blocking=True)

    groups = None if answers.groups is None else on_device(answers.groups, home)
    return dataclasses.replace(
        answers,
        scores=answers.scores.to(home, non_blocking=True),
        gradient=moved(answers.gradient),
        groups=groups,
        references=moved(answers.references),
        flat=moved(answers.flat),
    )
