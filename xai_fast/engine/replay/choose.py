"""Which plan a recipe runs under: what was asked for, what applies, and why the rest does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from xai_fast.core.prepared import Prepared
from xai_fast.engine.evaluate import Score
from xai_fast.engine.evaluate.agreement import tail_refusal
from xai_fast.engine.precision import halves_pay
from xai_fast.engine.recipe import Recipe
from xai_fast.engine.settings import Settings
from xai_fast.engine.store import ModelStore
from xai_fast.engine.tiers import plain_for
from xai_fast.graph.deadline import limited

from .local.boxed import Boxed
from .local.local import Asked, Local
from .tail import Tail


@dataclass(frozen=True)
class Choice:
    """The plan of one call.

    Attributes:
        plan: "dense", "tail" or "local".
        prepared: the model that runs.
        tails: the tails that the recipe's questions use, by their layers.
        local: how variants run that differ inside boxes.
        refused: plans that do not apply, each with the reason.
        tier: "plain" or "prepared", and why, in words.
    """

    plan: str
    prepared: Prepared
    tails: Mapping[tuple[str, ...], Tail] = field(default_factory=dict)
    local: Local | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    tier: str = "prepared"


def choose(settings: Settings, store: ModelStore, recipe: Recipe, inputs: Tensor) -> Choice:
    """The cheapest exact plan, or the one that is wanted, and the model prepared for it; within the time of `limited`.

    Raises:
        ValueError: the wanted plan does not apply; says why. Or a layer runs more than once.
    """
    plain, tier = plain_for(settings, store, recipe, inputs)
    if plain is not None:
        return Choice("dense", plain, refused=dict.fromkeys(("local", "tail"), plain.resists), tier=tier)
    with limited() if settings.plan == "auto" else nullcontext():  # what was asked for is no mere optimisation
        return dataclasses.replace(_chosen(settings, store, recipe, inputs), tier=tier)


def _chosen(settings: Settings, store: ModelStore, recipe: Recipe, inputs: Tensor) -> Choice:
    """The cheapest exact plan, or the one that is wanted, and the model prepared for it.

    Raises:
        ValueError: the wanted plan does not apply; says why. Or a layer runs more than once.
    """
    wanted, layers = settings.plan, frozenset((*recipe.layers, *recipe.unfolded))
    if wanted == "dense":
        reason = 'plan="dense" was asked for'
        return Choice("dense", store.prepare(settings, layers, inputs), refused={"local": reason, "tail": reason})
    local = _local(settings, store, recipe, inputs) if wanted != "tail" else 'plan="tail" was asked for'
    if isinstance(local, tuple):
        refused = {"tail": "the method looks at no layer (its variants change boxes of the input)"}
        return Choice("local", local[0], local=local[1], refused=refused)
    prepared = store.prepare(settings, layers, inputs)
    tails, no_tail = _tails(store, recipe, prepared, inputs)
    refused = {"local": local, **({"tail": no_tail} if no_tail is not None else {})}
    if wanted in refused:
        raise ValueError(
            f'`plan` "{wanted}" does not apply here: {refused[wanted]}; give "auto", which takes the fastest '
            "plan that applies"
        )
    return Choice("dense" if no_tail is not None else "tail", prepared, tails, refused=refused)


def _local(settings: Settings, store: ModelStore, recipe: Recipe, inputs: Tensor) -> tuple[Prepared, Local] | str:
    """The local plan and the model that it runs; or why there is none."""
    variants = recipe.variants
    if not isinstance(recipe.evaluate, Score) or variants is None or variants.change != "boxes":
        return "the method does not ask for scores of inputs that differ inside a box"
    if settings.compile is True:
        return "the whole model was to be compiled"
    # In reduced precision regions carry their difference to a clean run in full precision.
    prepared = store.prepare(settings, frozenset(recipe.layers), inputs, exact=True)
    device = prepared.device or inputs.device
    reduced = settings.mode != "exact" and prepared.reducible and halves_pay(device, torch.bfloat16)
    half = torch.bfloat16 if reduced else None
    asked = Asked(settings.memory_limit, settings.rows, half, settings.plan == "local")
    local = store.local(prepared, cast("Boxed", variants), inputs, asked)
    return local if isinstance(local, str) else (prepared, local)


def _tails(
    store: ModelStore, recipe: Recipe, prepared: Prepared, inputs: Tensor
) -> tuple[dict[tuple[str, ...], Tail], str | None]:
    if not recipe.layers:
        changed = recipe.variants.change if recipe.variants is not None else "nothing"
        return {}, f"the method looks at no layer (its variants change {changed} of the input)"
    # A change is made at one layer at a time; gradients are taken at all of them in one pass.
    groups = [(layer,) for layer in recipe.layers] if recipe.change is not None else [recipe.layers]
    tails = {}
    for group in groups:
        tail = store.tail(prepared, group, inputs)
        if isinstance(tail, str):
            return {}, tail
        if recipe.takes_gradients and (reason := tail_refusal(prepared, tuple(inputs.shape[1:]), group, tail)):
            return {}, reason
        tails[group] = tail
    return tails, None
