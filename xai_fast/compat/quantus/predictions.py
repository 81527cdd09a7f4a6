"""Quantus' questions to a torch model: class scores by the engine, and the softmax that Quantus puts behind them.

Not covered: arguments for the model, gradients, batches of tokens, models that return no table of class scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.models import accept, answer_of, engine_of, model_of, one_tensor, refuse_changed
from xai_fast.compat.worth import Work


def predicted(call: Call) -> Any:
    """The scores or probabilities of a batch, (N, classes)."""
    wrapper = call.explainer
    refuse_changed(wrapper, "quantus", "predict")
    if call["grad"] or wrapper.model_predict_kwargs or set(call.arguments) - {"x", "grad"}:
        raise Uncovered("gradients, or arguments for the model")
    model, batch = wrapper.model, call["x"]
    if type(batch) is not np.ndarray or any(kind.__name__ == "PreTrainedModel" for kind in type(model).__mro__):
        raise Uncovered(f"a batch of type {type(batch).__name__}, or a model of transformers")
    if not isinstance(model, nn.Module) or model.training:
        raise Uncovered("the model is no module in eval mode")
    rows = one_tensor(torch.Tensor(batch).to(wrapper.device))
    asked = wrapper.get_softmax_arg_model()
    softmax = _added(asked, model)
    asked = model_of(model if softmax is not None else asked)
    answer = answer_of(asked, asked, rows)
    if len(answer.shape) != 1 or answer.dtype is not rows.dtype:
        raise Uncovered("the model's output is no table of class scores in the inputs' type")
    accept(asked, asked, rows, answer, Work(len(rows)))
    from xai_fast.engine.responses import class_scores  # heavy; what is passed on does without

    scores = class_scores(engine_of(wrapper, asked), rows)
    return (scores if softmax is None else softmax(scores)).cpu().numpy()


def _added(asked: nn.Module, model: nn.Module) -> nn.Module | None:
    """The softmax that Quantus puts behind the model, anew for every call; None where it does not."""
    if not isinstance(asked, nn.Sequential) or asked is model or len(asked) != 2:
        return None
    first, last = asked
    return last if first is model and type(last) is nn.Softmax else None
