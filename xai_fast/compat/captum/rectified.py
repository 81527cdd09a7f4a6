"""Captum's guided backpropagation and deconvolution, which know ReLU modules only; ours know every ReLU.

Not covered: models in which a ReLU runs that is no `nn.ReLU`.
"""

from __future__ import annotations

from typing import Any

from captum._utils.gradient import compute_gradients  # pyright: ignore[reportMissingImports]

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.models import model_of
from xai_fast.compat.worth import Work, pays

from .arguments import Asked, asked, rows_of


def guided_backprop(call: Call) -> Any:
    """Our method."""
    asked_for = _with_modules_alone(call)
    from xai_fast.methods.guided_backprop import GuidedBackprop  # heavy; what is passed on does without

    values = GuidedBackprop(asked_for.engine).attribute(asked_for.inputs.detach(), asked_for.target)
    return asked_for.returned(values)


def deconvolution(call: Call) -> Any:
    """Our method."""
    asked_for = _with_modules_alone(call)
    from xai_fast.methods.deconvolution import Deconvolution  # heavy; what is passed on does without

    values = Deconvolution(asked_for.engine).attribute(asked_for.inputs.detach(), asked_for.target)
    return asked_for.returned(values)


def _with_modules_alone(call: Call) -> Asked:
    explainer = call.explainer
    if explainer.gradient_func is not compute_gradients:
        raise Uncovered("the explainer has its own `gradient_func`")
    rows = rows_of(call)
    pays(model_of(explainer.forward_func), rows)
    asked_for = asked(call, Work(rows, gradients=True))
    if asked_for.answer.rectifies_outside:
        raise Uncovered("a ReLU runs that is no `nn.ReLU` module, which captum does not see")
    return asked_for
