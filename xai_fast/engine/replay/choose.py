"""Which plan a recipe runs under: what was asked for, what applies, and why the rest does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from xai_fast.core.prepared import Prepared
from xai_fast.engine.evaluate import Score
from xai_fast.engine.recipe import Recipe

from .local.local import Boxed, Local, local_of
from .tail import Tail, tail_of

if TYPE_CHECKING:
    from xai_fast.engine.engine import Engine


@dataclass(frozen=True)
class Choice:
    """The plan of one call.

    Attributes:
        plan: "dense", "tail" or "local".
        tails: the tails that the recipe's questions use, by their layers.
        local: how variants run that differ inside boxes.
        refused: plans that do not apply, each with the reason.
    """

    plan: str
    tails: Mapping[tuple[str, ...], Tail] = field(default_factory=dict)
    local: Local | None = None
    refused: Mapping[str, str] = field(default_factory=dict)


def choose(engine: Engine, recipe: Recipe, prepared: Prepared, inputs: Tensor) -> Choice:
    """The cheapest exact plan, or the one that is wanted.

    Raises:
        ValueError: the wanted plan does not apply; says why. Or a layer runs more than once.
    """
    wanted = engine.plan
    if wanted == "dense":
        return Choice("dense", refused=dict.fromkeys(("local", "tail"), 'plan="dense" was asked for'))
    tails, no_tail = _tails(recipe, prepared, inputs)
    local = _local(engine, recipe, prepared, inputs) if wanted != "tail" else 'plan="tail" was asked for'
    refused = {"local": local} if isinstance(local, str) else {}
    refused.update({"tail": no_tail} if no_tail is not None else {})
    if wanted in refused:
        raise ValueError(
            f'`plan` "{wanted}" does not apply here: {refused[wanted]}; give "auto", which takes the fastest '
            "plan that applies"
        )
    if not isinstance(local, str):
        return Choice("local", local=local, refused=refused)
    return Choice("dense" if no_tail is not None else "tail", tails, refused=refused)


def _local(engine: Engine, recipe: Recipe, prepared: Prepared, inputs: Tensor) -> Local | str:
    variants = recipe.variants
    if not isinstance(recipe.evaluate, Score) or variants is None or variants.change != "boxes":
        return "the method does not ask for scores of inputs that differ inside a box"
    if prepared.compiled is not None:
        return "the whole model was compiled, as was asked for"
    if prepared.dtype in (torch.bfloat16, torch.float16):
        return "in half precision regions are not re-run yet"
    batch_size = None if engine.batch_size == "auto" else int(engine.batch_size)
    boxed = cast("Boxed", variants)
    return local_of(prepared, boxed, inputs, engine.memory_limit, batch_size, forced=engine.plan == "local")


def _tails(recipe: Recipe, prepared: Prepared, inputs: Tensor) -> tuple[dict[tuple[str, ...], Tail], str | None]:
    if not recipe.clean.layers:
        changed = recipe.variants.change if recipe.variants is not None else "nothing"
        return {}, f"the method looks at no layer (its variants change {changed} of the input)"
    # A change is made at one layer at a time; gradients are taken at all of them in one pass.
    groups = [(layer,) for layer in recipe.clean.layers] if recipe.change is not None else [recipe.clean.layers]
    tails = {}
    for group in groups:
        tail = tail_of(prepared, group, inputs)
        if isinstance(tail, str):
            return {}, tail
        if recipe.change is None and not tail.differentiates:
            return {}, "a part of the forward runs without gradients"
        tails[group] = tail
    return tails, None
