"""The checks that every method makes of its inputs, before anything runs."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from torch import Tensor, nn

from xai_fast.core.plain import plain


def refuse_single_image(inputs: Tensor, model: Any) -> None:
    """Refuses one image (C, H, W), which would pass for a batch of C signals (torch's 2-d layers take it, too).

    Raises:
        ValueError: the model's first convolution has two axes and as many channels as there are "signals".
    """
    if inputs.ndim != 3 or not isinstance(model, nn.Module):
        return
    first = next((m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)), None)
    if isinstance(first, nn.Conv2d) and first.in_channels == inputs.shape[0] and inputs.shape[1] >= 8:
        raise ValueError(
            f"`inputs` of shape {tuple(inputs.shape)} are one image without batch axis; give (N, C, H, W): inputs[None]"
        )


def refuse_text_first(model: Any) -> None:
    """Refuses a model that would read the images as numbers of words, as those of images and text do.

    Raises:
        ValueError: its forward takes `input_ids` first, and images by another name.
    """
    if isinstance(model, nn.Module) and _takes_text_first(type(model)):
        raise ValueError(
            f"`model`: the forward of {type(model).__name__} takes `input_ids` first and the images as `pixel_values`; "
            "give a module whose forward takes the images, calls it by names (input_ids=..., pixel_values=images) and "
            "returns scores"
        )


@cache
def _takes_text_first(kind: type[nn.Module]) -> bool:
    forward = inspect.getattr_static(kind, "forward")  # that of TorchScript's modules is no function
    names = list(inspect.signature(forward).parameters) if inspect.isfunction(forward) else []
    return names[1:2] == ["input_ids"] and "pixel_values" in names


def spatial_axes(model: Any, default: int) -> int:
    """How many axes beside the channels an input has, as the model's first convolution says."""
    first = None
    if isinstance(model, nn.Module):
        first = next((m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)), None)
    return default if first is None else len(first.kernel_size)


def checked(inputs: Any) -> Tensor:
    """The inputs as a plain tensor, if they are a batch that a model can take.

    Raises:
        TypeError: not a floating tensor.
        ValueError: not (N, C, *S) with at least one element per axis, or not finite; names the sample.
    """
    if isinstance(inputs, list | tuple):
        raise TypeError(
            f"`inputs` came as a {type(inputs).__name__} of {len(inputs)}; give one tensor (N, C, *S). "
            "Models with several input tensors are not served natively: use the reference library for them"
        )
    if not isinstance(inputs, Tensor):
        raise TypeError(f"`inputs` came as {type(inputs).__name__}; give a tensor (N, C, *S)")
    inputs = plain("inputs", inputs)
    if not inputs.is_floating_point():
        raise TypeError(f"`inputs` came as {inputs.dtype}; give a floating tensor, normalised as the model expects it")
    if inputs.ndim < 3 or inputs.ndim > 5 or 0 in inputs.shape:
        hint = " (one image needs a batch axis: inputs[None])" if inputs.ndim == 3 or inputs.ndim == 2 else ""
        raise ValueError(f"`inputs` of shape {tuple(inputs.shape)} are no batch; give (N, C, *S), none of them 0{hint}")
    finite = inputs.detach().flatten(1).sum(1).isfinite()
    if not finite.all():
        finite = inputs.detach().flatten(1).isfinite().all(1)
    if not finite.all():
        raise ValueError(f"`inputs` hold NaN or Inf in sample {int((~finite).nonzero()[0])}; give finite values")
    return inputs
