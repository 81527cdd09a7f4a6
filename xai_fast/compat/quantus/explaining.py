"""Our methods as the `explain_func` of Quantus' metrics: `explain(model, inputs, targets, method="GradCAM")`.

Quantus hands over arrays and takes arrays; what it gives to `explain_func_kwargs` are a method's name and settings:

    quantus.PixelFlipping(...)(model, x_batch, y_batch, explain_func=explain,
                               explain_func_kwargs={"method": "Occlusion", "window": 16, "stride": 8})
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from xai_fast.engine import Engine
from xai_fast.methods.base import AbstractMethod
from xai_fast.methods.build import build

__all__ = ["explain"]


def explain(
    model: Any,
    inputs: ArrayLike | Tensor,
    targets: ArrayLike | Tensor,
    *,
    method: str | Callable[[Engine], AbstractMethod],
    reduce_axes: Sequence[int] = (1,),
    keepdims: bool = True,
    device: Any = None,
    **settings: Any,
) -> NDArray[np.floating]:
    """The attributions of a batch, which runs as one, laid out as `quantus.explain` has them.

    Args:
        model: a `torch.nn.Module`, as Quantus hands it over, or an `Engine`; it is not modified. Metrics that give it
            other weights (`MPRT`) get the maps of these.
        inputs: (N, C, *S), the channels first, in the space the model sees; they are cast to the type of its weights.
        targets: (N,) classes.
        method: a name, such as "GradCAM" or "Occlusion"; or a function that makes the method for an engine, such as
            `lambda engine: xf.SmoothGrad(xf.IntegratedGradients(engine))`.
        reduce_axes: over which axes values are summed; () keeps all of them. As for `quantus.explain` the channels are.
        keepdims: whether axes that were summed over stay, with one entry.
        device: where the model has to be; Quantus says it.
        settings: of the named method, such as `window=16`.

    Returns:
        (N, 1, *S), by the default `reduce_axes`, in the type of the model's weights (float32 for half precision), in
        the method's units and with its sign. The same inputs get the same draws in whatever batch they come.

    Raises:
        TypeError, ValueError: an argument does not fit; before the model runs.
    """
    engine = Engine.of(model)
    rows = _on_the_model(engine.model, inputs, device)
    axes = _checked_axes(reduce_axes, rows.ndim)
    asked = _method(method, engine, settings)
    values = asked.attribute(rows, _classes(targets, len(rows)))
    values = values.sum(axes, keepdim=keepdims) if axes else values
    return (values.float() if values.itemsize < 4 else values).cpu().numpy()


def _method(method: Any, engine: Engine, settings: dict[str, Any]) -> AbstractMethod:
    """The method over the engine."""
    if isinstance(method, str):
        return build(method, engine, settings)
    if isinstance(method, AbstractMethod) or not callable(method):
        raise TypeError(
            f"`method` came as {type(method).__name__}; give a name such as 'GradCAM', or a function that makes the "
            "method for an engine: Quantus' metrics ask about several models"
        )
    if settings:
        raise ValueError(f"`{min(settings)}` has no meaning beside a function as `method`; set it in the function")
    asked = method(engine)
    if not isinstance(asked, AbstractMethod) or asked.engine.model is not engine.model:
        raise TypeError(f"`method` returned {asked!r}; give a function that returns a method for the engine it gets")
    return asked


def _on_the_model(model: Any, inputs: Any, device: Any) -> Tensor:
    """The inputs where the model is, and in the type of its weights."""
    weights = model.parameters() if isinstance(model, nn.Module) else iter(())
    like = next((one for one in weights if one.is_floating_point()), torch.empty(0))
    asked = torch.device(like.device if device is None else device)
    # An index that is not given is the current one's.
    if asked.type != like.device.type or asked.index not in (None, like.device.index or 0):
        raise ValueError(f"`device` is {device}, and the model is on {like.device}; move the model there")
    rows = inputs.detach() if isinstance(inputs, Tensor) else torch.from_numpy(np.array(inputs, order="C"))
    return rows.to(like.device, like.dtype)


def _checked_axes(axes: Any, count: int) -> tuple[int, ...]:
    found = tuple(axes) if isinstance(axes, Sequence) and not isinstance(axes, str) else (None,)
    if not all(type(axis) is int and 0 < axis < count for axis in found) or len(set(found)) < len(found):
        raise ValueError(
            f"`reduce_axes` came as {axes!r}; give different axes out of {tuple(range(1, count))}, or () to keep all"
        )
    return found  # type: ignore[return-value]


def _classes(targets: Any, count: int) -> Tensor:
    """The classes as LongTensor (N,)."""
    found = torch.as_tensor(targets)
    whole = found.dtype is not torch.bool and not (found.is_floating_point() or found.is_complex())
    if not whole or found.shape != (count,):
        raise ValueError(
            f"`targets` came as {found.dtype} of shape {tuple(found.shape)}; give one class per input, ({count},) "
            "whole numbers"
        )
    return found.long().cpu()
