"""`engine.explain_plan`: what a method would do with these inputs, in words."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from xai_fast.ops import backends

from .budgets import budget_for
from .evaluate import InputGradient, Score
from .evaluate.agreement import backward_for
from .inputs import checked
from .plan import RowBudget
from .recipe import Recipe
from .replay.choose import Choice, choose
from .settings import Settings
from .spread import shared_among
from .store import ModelStore


def describe(settings: Settings, store: ModelStore, method: Any, inputs: Tensor) -> str:
    """The plan as a few lines of text; see `Engine.explain_plan`."""
    inputs = checked(inputs)
    with store.turn(len(inputs), deterministic=settings.deterministic):
        recipe = method.recipe(store.adopt(inputs))
        choice = choose(settings, store, recipe, inputs)
        prepared = choice.prepared
        budget = budget_for(settings, prepared, inputs, recipe.evaluate)
        devices = _devices(settings, store, choice, recipe, inputs)
    variants = len(recipe.variants) if recipe.variants is not None else 0
    chunk = budget.rows(max(variants, len(inputs)))
    lines = [
        f"{method!r} on {tuple(inputs.shape)}",
        f"rows: {_rows(method, recipe, inputs)}",
        f"tier: {choice.tier}",
        f"plan: {_plan(choice)}",
        *(f"  {plan} refused: {reason}" for plan, reason in choice.refused.items()),
        f"rows per forward: {_at_once(choice, budget, chunk)}",
        *devices,
        *_gradients(choice, recipe, inputs),
        f"model: {_model(prepared)}",
        *(f"  {note}" for note in prepared.notes),
        f"preparation: {prepared.seconds:.2f} s; compiled: {'yes' if settings.compile is True else 'no'}",
        *_decided(store, inputs),
        f"ops: {_backends()}",
    ]
    return "\n".join(lines)


def _rows(method: Any, recipe: Recipe, inputs: Tensor) -> str:
    total, variants = method.cost_of(inputs).forwards, recipe.variants
    if variants is not None and recipe.then is None and recipe.change is None and isinstance(recipe.evaluate, Score):
        total = len(inputs) + len(variants)  # where pictures decide on segments, `cost` is only a bound
    parts = [f"{len(inputs)} clean"]
    if variants is not None:
        fewer = ", fewer where an error is small enough before" if recipe.levels is not None else ""
        parts.append(f"{len(variants)} variants in which {variants.change} changed{fewer}")
    more = total - len(inputs) - (len(variants) if variants is not None else 0)
    if recipe.change is not None:
        parts.append(f"{more} in which the output of {' or '.join(recipe.layers)} is changed")
    elif more > 0:
        parts.append(f"{more} beside them: baselines, references, points at a layer, or what answers lead to")
    return f"{total} ({', '.join(parts)})"


def _plan(choice: Choice) -> str:
    if choice.plan == "dense":
        return "dense, every row runs the whole model; saved work: none"
    if choice.local is not None:
        return f"local, clean activations run once and are kept; {choice.local.saved}"
    parts = [f"behind {' and '.join(layers)} {tail.saved}" for layers, tail in choice.tails.items()]
    return (
        f"tail, what precedes {'a layer' if len(parts) > 1 else 'the layer'} runs once; saved work: {'; '.join(parts)}"
    )


def _devices(settings: Settings, store: ModelStore, choice: Choice, recipe: Recipe, inputs: Tensor) -> list[str]:
    """Among which devices variants are shared, where the user named some."""
    if settings.devices is None:
        return []
    others = shared_among(settings, store, choice, recipe, inputs)
    if isinstance(others, str):
        return [f"devices: {choice.prepared.device} alone ({others})"]
    return [f"devices: {', '.join(str(one.device) for one in (choice.prepared, *others))} in turn"]


def _gradients(choice: Choice, recipe: Recipe, inputs: Tensor) -> list[str]:
    """How gradients are taken, where they are."""
    question = recipe.evaluate if recipe.variants is not None else recipe.clean
    if not isinstance(question, InputGradient):
        return []
    found = backward_for(choice.prepared, tuple(inputs.shape[1:]), (), question.rule)
    if isinstance(found, str):
        return [f"gradients: by autograd ({found})"]
    summed = found.first is not None and question.summed is not None
    first = "; the first layer runs backward once for all rows that run together" if summed else ""
    return [f"gradients: explicit backward over the prepared graph{first}"]


def _at_once(choice: Choice, budget: RowBudget, chunk: int) -> str:
    local = choice.local
    if local is not None:
        kept = f"clean activations of {local.inputs} input{'s' if local.inputs > 1 else ''} kept"
        return (
            f"{local.rows} regions, {local.whole_rows} whole maps; {kept}, {local.replay.row_bytes / 1e6:.0f} MB each"
        )
    timed = " at first, then timed" if budget.measuring else ""
    return f"{chunk}{timed}" + (f", at most {budget.most} fit into memory" if budget.most is not None else "")


def _model(prepared: Any) -> str:
    kind = "own copy" if prepared.copied else "the caller's object"
    layout = ", channels-last" if prepared.channels_last else ""
    dtype = str(prepared.dtype).removeprefix("torch.") if prepared.dtype else "dtype of the inputs"
    return f"{kind}, {dtype}{layout}, {prepared.folded} batch normalisations folded"


def _decided(store: ModelStore, inputs: Tensor) -> list[str]:
    """What was timed or fixed for inputs of this shape."""
    decisions = store.contents().decisions
    lines = decisions.lines(tuple(inputs.shape[1:]))
    return [f"decided{' (given)' if decisions.given else ''}:", *(f"  {line}" for line in lines)] if lines else []


def _backends() -> str:
    """Which implementations can run here; each op takes the first that accepts its tensors."""
    available = [name for name, reason in backends().items() if reason is None]
    refused = [f"{name} not: {reason}" for name, reason in backends().items() if reason is not None]
    return ", ".join([*available, *refused])
