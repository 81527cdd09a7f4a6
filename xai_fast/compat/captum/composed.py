"""Captum's methods that are made of others: its own code over the accelerated parts.

Not covered: parts that are not served themselves.
"""

from __future__ import annotations

import copy
import types
from typing import Any

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.models import refuse_changed

from . import METHODS


def noise_tunnel(call: Call) -> Any:
    """Captum's noise, which it draws from the global generators, around the accelerated method."""
    refuse_changed(call.explainer, "captum")
    served = copy.copy(call.explainer)
    served.attribution_method = _part(call, call.explainer.attribution_method)
    return call.plain(served)


def guided_grad_cam(call: Call) -> Any:
    """Captum's product of the accelerated factors."""
    refuse_changed(call.explainer, "captum")
    served = copy.copy(call.explainer)
    served.grad_cam = _part(call, served.grad_cam)
    served.guided_backprop = _part(call, served.guided_backprop)
    return call.plain(served)


def _part(call: Call, explainer: Any) -> Any:
    """An explainer whose `attribute.__wrapped__`, which captum calls, is accelerated."""
    accelerated = METHODS.get(type(explainer).__name__)
    if accelerated is None or type(explainer).__module__ not in (accelerated.owner, f"{__package__}"):
        raise Uncovered(f"{type(explainer).__name__} is captum's own")
    own = getattr(type(explainer), accelerated.method)
    own = own.__wrapped__ if hasattr(own, "__xai_fast__") else own

    def attribute(_explainer: Any, *args: Any, **kwargs: Any) -> Any:
        part = accelerated.call(own, explainer, args, kwargs)
        try:
            result = accelerated.function(part)
        except Exception as error:
            part.passed_on(error)
            result = _MISSING
        call.reason = call.reason or part.reason
        if result is not _MISSING:
            return result
        with part.alone():
            return own(explainer, *args, **kwargs)

    served = copy.copy(explainer)
    served.attribute = types.SimpleNamespace(__wrapped__=attribute)
    return served


_MISSING = object()
