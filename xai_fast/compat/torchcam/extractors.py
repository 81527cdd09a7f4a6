"""torchcam's extractors that run the model themselves: its own code, which asks the engine in place of the model.

Not covered: models that return no table of class scores, `targets` for SmoothGradCAMpp, layers that return several
tensors, run twice or are followed by a ReLU in place.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torchcam.methods.core import _CAM  # pyright: ignore[reportMissingImports]

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.hooks import without_hooks
from xai_fast.compat.models import accept, answer_of, engine_of, model_of, one_tensor, refuse_changed
from xai_fast.compat.worth import Work, pays
from xai_fast.core.layers import layer_names


def own_forward(call: Call) -> Any:
    """Torchcam's own: the forward has run already."""
    raise Uncovered("it reads the user's own forward")


def drawing(call: Call) -> Any:
    """Torchcam's own: no model is asked."""
    raise Uncovered("it draws, and asks no model")


def scored(call: Call) -> Any:
    """Its masks and its softmax over our scores."""
    extractor = call.explainer
    refuse_changed(extractor, "torchcam", "_get_score_weights")
    with without_hooks(extractor.model, _CAM):
        inputs = one_tensor(extractor._input)
        rows = sum(len(one.flatten(0, 1)) for one in extractor.hook_a) * getattr(extractor, "num_samples", 1)
        _checked(extractor, inputs, Work(rows, max(rows // extractor.bs, 1)))
        engine, original = engine_of(extractor, extractor.model), extractor._select_scores
        served = copy.copy(extractor)

        def score_input(rows: Tensor, indices: Tensor, class_idx: Any, targets: Any) -> Tensor:
            if targets is None:
                chosen = torch.as_tensor(class_idx).reshape(-1)
                return engine.scores(rows, chosen.expand(len(rows)) if len(chosen) == 1 else chosen[indices])

            def of_rows(output: Tensor, sample: Tensor) -> Tensor:
                return original(output, indices[sample], class_idx, targets)

            return engine.scores(rows, of_rows)

        served._score_input = score_input
        return call.plain(served)


def smoothed(call: Call) -> Any:
    """Its noise and its formula over what the layers answer to us; as there, the last draw's answer stays."""
    extractor = call.explainer
    refuse_changed(extractor, "torchcam", "_compute_smoothgrad_weights")
    inputs = one_tensor(extractor._input)
    if call["targets"] is not None or set(call.arguments) - {"class_idx", "eps"}:
        raise Uncovered("`targets`, or arguments that are torchcam's own")
    if not torch.is_grad_enabled():
        raise Uncovered("gradients are off")
    with without_hooks(extractor.model, _CAM):
        rows = len(inputs) * extractor.num_samples
        pays(model_of(extractor.model), rows)
        classes = _checked(extractor, inputs, Work(rows, extractor.num_samples, gradients=True))
        names = _layers(extractor, inputs)
        target = torch.as_tensor(call["class_idx"]).reshape(-1).expand(len(inputs)).clone()
        if int(target.max()) >= classes:
            raise Uncovered("a class that the model does not have")
        from xai_fast.engine.responses import layer_answers  # heavy; what is passed on does without

        engine, served = engine_of(extractor, extractor.model), copy.copy(extractor)

        def backprop(rows: Tensor, _class_idx: Any, **_kept: Any) -> None:
            found, _ = layer_answers(engine, names, rows.detach(), target, gradients=True)
            for at, one in enumerate(found):
                # The lists are the extractor's own as well, which reads them afterwards.
                extractor.hook_a[at], extractor.hook_g[at] = (
                    values if extractor._reshape_transform is None else extractor._reshape_transform(values)
                    for values in (one.activation, one.gradient)
                )

        served.model, served._backprop = (lambda rows: rows), backprop
        kept = list(extractor.hook_a), list(extractor.hook_g)
        try:
            return call.plain(served)
        except Exception:  # passed on; the extractor is left as it was found
            extractor.hook_a[:], extractor.hook_g[:] = kept
            raise


def _layers(extractor: Any, inputs: Tensor) -> list[str]:
    """The names of the layers that are looked at.

    Raises:
        Uncovered: one does not return one tensor once, or torchcam, which keeps no copy, sees it written over.
    """
    for name in extractor.target_names:
        answer = answer_of(extractor.model, extractor.model, inputs, extractor.submodule_dict[name])
        if len(answer.layer) != 1 or answer.layer[0] is None:
            raise Uncovered("a layer that does not return one tensor once")
        if answer.overwritten:
            raise Uncovered("what a layer returned is written over later, in place, and torchcam sees that")
        if answer.replaced:
            raise Uncovered("a hook replaces what a layer returned, and torchcam's may see what was before")
    return list(layer_names(extractor.model, list(extractor.target_names)))


def _checked(extractor: Any, inputs: Tensor, work: Work) -> int:
    """How many class scores the model returns.

    Args:
        extractor: torchcam's object.
        inputs: (N, C, *S).
        work: what torchcam would ask of the model.

    Raises:
        Uncovered: it returns something else.
    """
    model = model_of(extractor.model)
    if not isinstance(model, nn.Module):
        raise Uncovered("the model is no module")
    answer = answer_of(model, model, inputs)
    if len(answer.shape) != 1 or answer.dtype is not inputs.dtype:
        raise Uncovered("the model's output is no table of class scores in the inputs' type")
    accept(model, model, inputs, answer, work)
    return answer.shape[0]
