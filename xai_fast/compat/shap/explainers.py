"""shap's explainers of torch models: its draws, layout and checks, and our sums.

Not covered: several inputs, the input of a layer, `local_smoothing`, variances; of DeepExplainer, models with anything
between input and output that is neither linear nor a module with a rule, or such a module that runs several times, with
backward hooks, or with modules that work in place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xai_fast.compat.calls import Call, CallersError, Uncovered
from xai_fast.compat.held import answering
from xai_fast.compat.hooks import refuse_backward_hooks
from xai_fast.compat.models import accept, answer_of, engine_of, model_of, one_tensor, refuse_changed
from xai_fast.compat.watched import Answer
from xai_fast.compat.worth import Work, pays


def gradient(call: Call) -> Any:
    """Expected gradients at the points that shap draws, for all outputs of an input at once."""
    explainer = call.explainer
    inputs, data, answer = _asked(call, explainer.model_inputs)
    draws = call["nsamples"]
    if type(draws) is not int or draws < 1:
        raise Uncovered("`nsamples` is no number of draws")
    if explainer.local_smoothing > 0 or call["return_variances"]:
        raise Uncovered("`local_smoothing`, or variances")
    wanted = call["ranked_outputs"] if type(call["ranked_outputs"]) is int else answer.shape[0]
    # shap asks for the gradients of all rows once for every output.
    work = Work(len(inputs) * draws * wanted, len(inputs) * wanted, gradients=True)
    accept(explainer.model, explainer.model, inputs, answer, work)
    ranks = _ranks(call, inputs, answer)
    from xai_fast.methods.gradient_shap import GradientShap  # heavy; what is passed on does without

    rseed = np.random.randint(0, 1_000_000) if call["rseed"] is None else call["rseed"]
    np.random.seed(rseed)  # as shap: once per output, so that all outputs have the same draws
    drawn = [(np.random.choice(len(data)), np.random.uniform()) for _ in range(len(inputs) * draws)]
    numbers = torch.tensor([number for number, _ in drawn])
    positions = torch.tensor([position for _, position in drawn], dtype=torch.float64)
    method = GradientShap(
        engine_of(explainer, explainer.model), baselines=data, n_samples=draws, draws=(positions, numbers)
    )
    return _arranged(call, method.attribute(inputs, ranks), ranks)


def deep(call: Call) -> Any:
    """Multipliers by our rules where they are shap's, averaged over the background."""
    explainer = call.explainer
    inputs, data, answer = _asked(call, explainer.data)
    refuse_backward_hooks(explainer.model)
    if any(getattr(module, "inplace", False) for module in explainer.model.modules()):
        raise Uncovered("a module that works in place, which shap's hooks on the one before it may not allow")
    pays(model_of(explainer.model), len(inputs) * len(data))
    if not answer.rescaled:
        raise Uncovered("an operation that shap's rule does not see, or a module that runs several times")
    work = Work(2 * len(inputs) * len(data), len(inputs), gradients=True)
    accept(explainer.model, explainer.model, inputs, answer, work)
    ranks = _ranks(call, inputs, answer)
    from xai_fast.methods.deep_lift import DeepLiftShap  # heavy; what is passed on does without

    values = DeepLiftShap(engine_of(explainer, explainer.model), baselines=data).attribute(inputs, ranks)
    if call["check_additivity"]:
        from shap.explainers._deep.deep_utils import _check_additivity  # pyright: ignore[reportMissingImports]

        with torch.no_grad():
            outputs = explainer.model(inputs)
        if call["ranked_outputs"] is None:
            each = [values[:, at].cpu().double().numpy() for at in range(values.shape[1])]
            _check_additivity(explainer, outputs.cpu(), each)
        else:
            raise Uncovered("additivity of some outputs is shap's own")
    return _arranged(call, values, ranks)


def partition(call: Call) -> Any:
    """Shap's own splits and sums of one row; a torch module in the function asks the engine."""
    explainer = call.explainer
    refuse_changed(explainer, "shap", "explain_row")
    function = getattr(explainer.model, "inner_model", explainer.model)
    with answering(function) as found:
        try:
            result = call.plain()
        except Exception as error:  # the caller's function's own, or shap's about it
            raise CallersError from error
    if not found.rows:
        call.passed_on(Uncovered(found.reason or "the module that the function holds was not asked"))
    return result


def _asked(call: Call, background: list[Any]) -> tuple[Tensor, Tensor, Answer]:
    """The inputs, the background, and what the model answers to one input."""
    explainer = call.explainer
    refuse_changed(explainer, "shap", "shap_values")
    if explainer.multi_input or isinstance(call["X"], list):
        raise Uncovered("several input tensors")
    if explainer.interim:
        raise Uncovered("the input of a layer is explained")
    inputs, data = one_tensor(call["X"]).detach(), one_tensor(background[0]).detach()
    model = model_of(explainer.model)
    if not isinstance(model, nn.Module):
        raise Uncovered("the model is no module")
    if data.shape[1:] != inputs.shape[1:] or data.dtype is not inputs.dtype or data.device != inputs.device:
        raise Uncovered("a background of another shape, type or device than the inputs")
    if not torch.is_grad_enabled():
        raise Uncovered("gradients are off")
    answer = answer_of(model, model, inputs)
    if len(answer.shape) != 1 or answer.dtype is not inputs.dtype:
        raise Uncovered("the model's output is no table of scores in the inputs' type")
    return inputs, data, answer


def _ranks(call: Call, inputs: Tensor, answer: Answer) -> Tensor:
    """LongTensor (N, K): which outputs of each input are explained, as shap orders them."""
    wanted, order = call["ranked_outputs"], call["output_rank_order"]
    if wanted is None or answer.shape[0] == 1:
        return torch.arange(answer.shape[0]).expand(len(inputs), -1).contiguous()
    if order not in ("max", "min", "max_abs") or type(wanted) is not int or not 1 <= wanted <= answer.shape[0]:
        raise Uncovered("an order or number of outputs that shap refuses")
    with torch.no_grad():
        scores = call.explainer.model(inputs)
    scores = scores.abs() if order == "max_abs" else scores
    return torch.sort(scores, descending=order != "min")[1][:, :wanted].cpu()


def _arranged(call: Call, values: Tensor, ranks: Tensor) -> Any:
    """(N, C, *S, K) in float64, as shap returns it; with the outputs' numbers where they were ranked."""
    found: NDArray[np.float64] = values.movedim(1, -1).cpu().double().contiguous().numpy()
    if call["ranked_outputs"] is None:
        return found
    # Where there was nothing to rank shap's numbers are int32.
    return found, ranks.to(values.device) if call.explainer.multi_output else ranks.int()
