"""grad-cam's weights that ask the model once per channel: its formulas, for which the engine answers.

Not covered: a part of the channels, ablation layers of the user's own or of detectors, channels that
`reshape_transform` takes from another axis than the ablation layer; what `passes` does not cover.
"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_grad_cam.ablation_layer import (  # pyright: ignore[reportMissingImports]
    AblationLayer,
    AblationLayerVit,
)
from pytorch_grad_cam.activations_and_gradients import (  # pyright: ignore[reportMissingImports]
    ActivationsAndGradients,
)
from torch import Tensor, nn

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.compat.hooks import without_hooks
from xai_fast.compat.models import engine_of

from .arguments import inputs_of, layers_of, shape_of, target_of


def ablation(call: Call) -> Any:
    """How far the scores fall without each channel, of which the engine runs what follows the layer alone."""
    cam, layer = call.explainer, call["target_layer"]
    if cam.ratio_channels_to_ablate != 1.0:
        raise Uncovered("`ratio_channels_to_ablate` is not 1")
    if type(cam.batch_size) is not int or cam.batch_size < 1:
        raise Uncovered("`batch_size` is no number of rows")
    with without_hooks(cam.model, ActivationsAndGradients):
        channels = call["activations"].shape[1]
        inputs, answer = inputs_of(cam, call["input_tensor"], rows_each=channels, gradients=False)
        name = layers_of(cam)[next(at for at, one in enumerate(cam.target_layers) if one is layer)]
        reading, axis, found = _read(cam, inputs, layer)
        if call["activations"].shape[:2] != (len(inputs), found):
            raise Uncovered("activations of another layer")
        target = target_of(call["targets"], len(inputs), answer.shape[0])
        from xai_fast.methods.cam.variants import FarBelow, ablation_shares  # heavy; what is passed on does without

        change = FarBelow(cam.batch_size, axis)
        shares = ablation_shares(engine_of(cam, cam.model), name, reading, change, inputs.detach(), target)
    if call["activations"].min() != 0:
        call.note = "as grad-cam, channels are 10^7 below the layer's least value, and further for each of a batch"
    return shares.float().cpu().numpy()


def _read(cam: Any, inputs: Tensor, layer: nn.Module) -> tuple[Any, int, int]:
    """How what the layer returns is a grid, on which axis the channels lie, and how many there are."""
    from xai_fast.core.layers import Axes, Function  # heavy; what is passed on does without

    kind, shape = type(cam.ablation_layer), shape_of(cam, inputs, layer)
    if kind not in (AblationLayer, AblationLayerVit):
        raise Uncovered(f"an ablation layer of its own, {kind.__name__}")
    axis = 1 if kind is AblationLayer else len(shape)
    reading = Axes(1) if cam.reshape_transform is None else Function(cam.reshape_transform, inputs.ndim - 2)
    if reading.channel_axis(torch.empty(1, *shape)) != axis:
        raise Uncovered("channels that lie on another axis than those of the ablation layer")
    return reading, axis, shape[axis - 1]


def score(call: Call) -> Any:
    """What the engine says to the inputs seen through the channels, equal ones once."""
    cam, activations = call.explainer, call["activations"]
    if activations.ndim != 4:
        raise Uncovered("a layer that is no grid of images")
    with without_hooks(cam.model, ActivationsAndGradients):
        inputs, answer = inputs_of(cam, call["input_tensor"], rows_each=activations.shape[1], gradients=False)
        target = target_of(call["targets"], len(inputs), answer.shape[0])
        from xai_fast.methods.cam.variants import score_weights  # heavy; what is passed on does without

        grids = torch.from_numpy(activations).to(inputs)
        return score_weights(engine_of(cam, cam.model), grids, inputs.detach(), target).cpu().numpy()
