"""What captum's own code is given to call in place of the model: gradients and scores that the engine computes.

Captum then lays out rows, draws and adds up as ever, so whatever it does around the model stays what it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.joined import given
from xai_fast.compat.models import accept, answer_of, engine_of, model_of, refuse_changed
from xai_fast.compat.worth import Work, pays

from .arguments import asked_of, given_of, laid_as, refuse_own_gradients

ROWS = 32  # that one question to the engine holds at least, where captum would ask one by one


def with_gradients(call: Call, *, light: bool = False) -> Any:
    """The explainer with gradients from the engine; what that does not serve goes to captum, call by call.

    Args:
        call: whose explainer it is.
        light: whether the call takes one gradient per input, so that preparing a model for few is not worth it.

    Raises:
        Uncovered: the explainer is not captum's as it was made.
    """
    from captum._utils.gradient import compute_gradients  # pyright: ignore[reportMissingImports]

    explainer = call.explainer
    refuse_changed(explainer, "captum")
    refuse_own_gradients(explainer)

    def gradients(
        forward_fn: Callable[..., Any], inputs: Any, target_ind: Any = None, additional_forward_args: Any = None
    ) -> tuple[Tensor, ...]:
        try:
            found = given(explainer, forward_fn, inputs, additional_forward_args)
            if light:
                pays(model_of(forward_fn), len(found.batch))
            asked = asked_of(explainer, found, target_ind, Work(len(found.batch), gradients=True))
            from xai_fast.methods.saliency import Saliency  # heavy; what is passed on does without

            values = Saliency(asked.engine, absolute=False).attribute(found.batch.detach(), asked.target)
            return found.returned(laid_as(values, found.batch), as_tuple=True)
        except Exception as error:
            call.passed_on(error)
        return compute_gradients(forward_fn, inputs, target_ind, additional_forward_args)

    served = copy.copy(explainer)
    served.gradient_func = gradients
    return served


def with_scores(call: Call, work: Work) -> Any:
    """The explainer with a forward function that the engine answers: class scores of every row.

    Args:
        call: whose explainer it is.
        work: what captum would ask of the model.

    Raises:
        Uncovered: the engine does not serve the model.
    """
    explainer = call.explainer
    refuse_changed(explainer, "captum")
    forward, count = explainer.forward_func, len(call["inputs"]) if isinstance(call["inputs"], tuple) else 1
    found = given_of(call)
    model = model_of(found.forward)
    answer = answer_of(found.forward, model, found.batch)
    if len(answer.shape) > 1 or answer.dtype is not found.batch.dtype:
        raise Uncovered("the model's output is no table of scores")
    accept(found.forward, model, found.batch, answer, work)
    classes = torch.arange(*answer.shape or (1,))

    def scores(*arguments: Any) -> Tensor:
        asked = given(explainer, forward, arguments[:count], arguments[count:])
        engine = engine_of(explainer, model_of(asked.forward))
        values = engine.scores(asked.batch, classes.expand(len(asked.batch), -1))
        return values.to(answer.dtype).reshape(len(asked.batch), *answer.shape)

    served = copy.copy(explainer)
    served.forward_func = scores
    return served


def several_at_once(call: Call, rows: int) -> int:
    """Captum's `perturbations_per_eval` for inputs of so many rows, so that one question holds enough of them.

    Raises:
        Uncovered: it came as something that captum refuses, or captum shows its progress by it.
    """
    given = call["perturbations_per_eval"]
    if type(given) is not int or given < 1:
        raise Uncovered("`perturbations_per_eval` is no number of rows")
    if call["show_progress"]:
        raise Uncovered("`show_progress` is captum's own")
    return max(given, ROWS // rows)
