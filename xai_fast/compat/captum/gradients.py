"""Captum's gradient methods: its own code over the engine's gradients, or our method where that adds up by itself.

Not covered: a `gradient_func` of the user's; for few rows on a model that was hardly asked about before, preparing it
does not pay.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.models import refuse_changed
from xai_fast.compat.worth import Work

from .arguments import (
    asked,
    baselines_of,
    convergence_delta,
    differentiable,
    refuse_own_gradients,
    rows_of,
    tensors_in,
)
from .services import with_gradients

QUADRATURES: dict[str, Literal["gausslegendre", "left", "right", "middle"]] = {
    "gausslegendre": "gausslegendre",
    "riemann_left": "left",
    "riemann_right": "right",
    "riemann_middle": "middle",
}  # captum's trapezoid has weights that sum to 1 - 1/n, ours to 1


def saliency(call: Call) -> Any:
    """Captum's code over our gradients."""
    return call.plain(with_gradients(call, light=True))


def input_x_gradient(call: Call) -> Any:
    """Captum's code over our gradients."""
    return call.plain(with_gradients(call, light=True))


def gradient_shap(call: Call) -> Any:
    """Captum's draws, points and sums over our gradients."""
    return call.plain(with_gradients(call))


def integrated_gradients(call: Call) -> Any:
    """Our method, which keeps no row; captum's code over our gradients where its weights or its graph are its own."""
    try:
        asked_for, baseline = _path(call)
    except Uncovered as error:
        if str(error) != _BY_ROWS:
            raise
        return call.plain(with_gradients(call))
    from xai_fast.methods.integrated_gradients import IntegratedGradients  # heavy; what is passed on does without

    method = IntegratedGradients(
        asked_for.engine, n_steps=call["n_steps"], quadrature=QUADRATURES[call["method"]], baseline=baseline
    )
    values = asked_for.returned(method.attribute(asked_for.inputs.detach(), asked_for.target))
    if not call["return_convergence_delta"]:
        return values
    return values, convergence_delta(call, values)


_BY_ROWS = "row by row"


def _path(call: Call) -> tuple[Any, float | Tensor]:
    """The call in our words, and where its paths begin."""
    explainer = call.explainer
    refuse_changed(explainer, "captum")
    refuse_own_gradients(explainer)
    if type(call["n_steps"]) is not int or call["n_steps"] < 1:
        raise Uncovered("`n_steps` is no number of steps")
    asked_for = asked(call, Work(rows_of(call) * call["n_steps"], gradients=True))
    inputs = asked_for.inputs
    baseline = baselines_of(call, asked_for)
    chunk = call["internal_batch_size"]
    wide = chunk is not None and (type(chunk) is not int or chunk < len(inputs))  # of which captum warns
    if (
        wide
        or asked_for.given.layout is not None  # summed in captum's order, input by input
        or not explainer.multiplies_by_inputs
        or call["method"] not in QUADRATURES
        or inputs.dtype is not torch.float32  # captum's weights are in single precision whatever the inputs are in
        or differentiable(*tensors_in(call["inputs"]), *tensors_in(call["baselines"]))
    ):
        raise Uncovered(_BY_ROWS)
    return asked_for, baseline
