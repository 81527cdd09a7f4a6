"""Captum's guided backpropagation and deconvolution, which know ReLU modules only; ours know every ReLU.

Not covered: models in which a ReLU runs that is no `nn.ReLU`; under deconvolution, models with hooks.
"""

from __future__ import annotations

from typing import Any

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.hooks import refuse_hooks
from xai_fast.compat.models import model_of
from xai_fast.compat.worth import Work, pays

from .arguments import Asked, asked, laid_as, refuse_own_gradients, rows_of


def guided_backprop(call: Call) -> Any:
    """Our method."""
    asked_for = _with_modules_alone(call, deconvolution=False)
    from xai_fast.methods.guided_backprop import GuidedBackprop  # heavy; what is passed on does without

    values = GuidedBackprop(asked_for.engine).attribute(asked_for.inputs.detach(), asked_for.target)
    return asked_for.returned(laid_as(values, asked_for.inputs))


def deconvolution(call: Call) -> Any:
    """Our method."""
    asked_for = _with_modules_alone(call, deconvolution=True)
    from xai_fast.methods.deconvolution import Deconvolution  # heavy; what is passed on does without

    values = Deconvolution(asked_for.engine).attribute(asked_for.inputs.detach(), asked_for.target)
    return asked_for.returned(laid_as(values, asked_for.inputs))


def _with_modules_alone(call: Call, *, deconvolution: bool) -> Asked:
    explainer = call.explainer
    refuse_own_gradients(explainer)
    if explainer.use_relu_grad_output is not deconvolution:
        raise Uncovered("`use_relu_grad_output` is not what the class has")
    if deconvolution:
        refuse_hooks(explainer.model)
    rows = rows_of(call)
    pays(model_of(explainer.forward_func), rows)
    asked_for = asked(call, Work(rows, gradients=True))
    if asked_for.answer.rectifies_outside:
        raise Uncovered("a ReLU runs that is no `nn.ReLU` module, which captum does not see")
    return asked_for
