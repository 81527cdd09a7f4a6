"""Which tier a call runs on: a plain copy of the model, ready at once, or the prepared one where the work pays for it.

As a just-in-time compiler interprets first: what is in sight of a call and what was seen in earlier ones like it is
counted in forwards of one row, and from `PAYS` on the model is prepared. On the plain tier rows run one by one through
the model's own forward and autograd, on weights that are the caller's, so that nothing has to be proven first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import Tensor, nn

from xai_fast.core.apart import tell
from xai_fast.core.copies import has_hooks
from xai_fast.core.hooks import on_all_modules
from xai_fast.core.layers import Recorded
from xai_fast.core.prepared import Prepared, plain_copy
from xai_fast.graph.timed import record

from .decisions import TIER
from .evaluate import Evaluate, InputGradient, LayerActivation, LayerResponse, Score
from .recipe import Recipe
from .settings import Settings
from .store import ModelStore

Tier = Literal["plain", "prepared"]
# Preparing a torchvision network took 20 to 45 forwards of a row (Zen 3, one thread), and what is prepared saves a
# third to two thirds of each row.
PAYS = 64
_PLAIN = (Score, InputGradient, LayerResponse, LayerActivation)  # what nothing that was captured is needed for
_assumed: Tier | None = None


@contextmanager
def assuming(tier: Tier | None) -> Iterator[None]:
    """Puts a tier in force wherever both fit, in all threads: for tests."""
    global _assumed
    before, _assumed = _assumed, tier
    try:
        yield
    finally:
        _assumed = before


def forwards_of(recipe: Recipe, inputs: Tensor) -> int:
    """The work of a call in forwards of one row: a backward by the input alone takes about as long as its forward."""

    def each(question: Evaluate) -> int:
        return question.forwards + question.backwards

    variants = 0 if recipe.variants is None else len(recipe.variants)
    return len(inputs) * each(recipe.clean) + variants * each(recipe.evaluate) + (recipe.afterwards or 0)


def plain_for(settings: Settings, store: ModelStore, recipe: Recipe, inputs: Tensor) -> tuple[Prepared | None, str]:
    """The plain copy, if this call is to run on it; and which tier it takes, and why, in words."""
    if (reason := _only_prepared(settings, store, recipe)) is not None:
        return None, f"prepared ({reason})"
    layers, shape = frozenset((*recipe.layers, *recipe.unfolded)), tuple(inputs.shape[1:])
    work, seen = forwards_of(recipe, inputs), store.seen(layers, shape)
    said = f"{work} forwards of a row in sight, {seen} seen; preparing pays from {PAYS}"
    known, case = record(), _case(recipe, shape)
    tier = _assumed
    if tier is None and known.given:
        tier = known.get(TIER, case) or "prepared"
        said = "as decided"
    if tier is None:
        # What is ready costs nothing more.
        ready = work + seen >= PAYS or store.is_ready(settings, layers, inputs)
        tier = "prepared" if ready else "plain"
    if tier == "plain" and isinstance(store.model, nn.Module):
        tell(store.model, shape, lambda question: question.find_out())
        recorded = _already(store, recipe, inputs)
        try:
            return plain_copy(store.model, recorded), f"plain ({said})"
        except Exception as error:  # anything may refuse to be copied, for any reason of its own
            return None, f"prepared (a copy fails: {type(error).__name__})"
    return None, f"prepared ({said})"


def _already(store: ModelStore, recipe: Recipe, inputs: Tensor) -> Recorded | None:
    """The forward in which a layer was found, if it is all that a call asks for."""
    recorded, asked = store.recorded, recipe.clean
    if recorded is None or recipe.variants is not None or recipe.then is not None or len(inputs) > 1:
        return None
    if not isinstance(asked, LayerResponse | LayerActivation) or getattr(asked, "rule", "gradient") != "gradient":
        return None
    row = store.adopt(inputs).to(recorded.example.dtype)
    return None if recorded.answers(row, asked.layers) is None else recorded


def ran(store: ModelStore, recipe: Recipe, inputs: Tensor, tier: str) -> None:
    """Counts a call that is done, and writes down on which tier it ran."""
    layers, shape = frozenset((*recipe.layers, *recipe.unfolded)), tuple(inputs.shape[1:])
    store.saw_work(layers, shape, forwards_of(recipe, inputs))
    if not record().given:
        record().put(TIER, _case(recipe, shape), tier.partition(" ")[0])


def _only_prepared(settings: Settings, store: ModelStore, recipe: Recipe) -> str | None:
    """Why nothing but the prepared model may run; None where the plain copy may, too."""
    model = store.model
    if not isinstance(model, nn.Module):
        return "a plain callable is used as it is"
    defaults = (settings.mode, settings.plan, settings.batch_size, settings.memory_limit, settings.compile is True)
    unknown = recipe.then is not None and recipe.afterwards is None
    asked = (recipe.clean, recipe.evaluate)
    reasons = {
        "as was asked for": settings.prepare is True or (store.contents().eager and _assumed is None),
        "`mode`, `plan`, `batch_size`, `memory_limit` or `compile` say how it runs": defaults
        != ("exact", "auto", "auto", None, False),
        "it takes `args` or `kwargs`": bool(settings.args or settings.kwargs),
        "what the method asks next depends on answers": unknown or bool(recipe.change or recipe.unfolded),
        "the method asks for more than scores and gradients": not all(isinstance(one, _PLAIN) for one in asked),
    }
    found = next((reason for reason, holds in reasons.items() if holds), None)
    return "the model has hooks" if found is None and (on_all_modules() or has_hooks(model)) else found


def _case(recipe: Recipe, shape: tuple[int, ...]) -> str:
    question = recipe.evaluate if recipe.variants is not None else recipe.clean
    return f"{shape}, {type(question).__name__}, layers {sorted(recipe.layers)}"
