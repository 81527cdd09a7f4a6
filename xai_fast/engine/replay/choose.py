"""Which plan a recipe runs under: what was asked for, what applies, and why the rest does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from xai_fast.core.prepared import Prepared
from xai_fast.engine.recipe import Recipe

from .tail import Tail, tail_of

_UNBUILT = "re-running only a changed region is not built in this version"


@dataclass(frozen=True)
class Choice:
    """The plan of one call.

    Attributes:
        plan: "dense" or "tail".
        tails: the tails that the recipe's questions use, by their layers.
        refused: plans that do not apply, each with the reason.
    """

    plan: str
    tails: Mapping[tuple[str, ...], Tail] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def choose(wanted: str, recipe: Recipe, prepared: Prepared, inputs: Tensor) -> Choice:
    """The cheapest exact plan, or the one that is wanted.

    Raises:
        ValueError: the wanted plan does not apply; says why. Or a layer runs more than once.
    """
    if wanted == "dense":
        return Choice("dense", refused=dict.fromkeys(("local", "tail"), 'plan="dense" was asked for'))
    tails, reason = _tails(recipe, prepared, inputs)
    choice = Choice("tail" if reason is None else "dense", tails if reason is None else {}, _refused(reason))
    if wanted in choice.refused:
        raise ValueError(
            f'`plan` "{wanted}" does not apply here: {choice.refused[wanted]}; give "auto", which takes the fastest '
            "plan that applies"
        )
    return choice


def _refused(reason: str | None) -> dict[str, str]:
    return {"local": _UNBUILT} if reason is None else {"local": _UNBUILT, "tail": reason}


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
