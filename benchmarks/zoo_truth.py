"""Whether maps of the zoo's networks are those of plain PyTorch in float64, and by how much each is off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.core import autograd
from xai_fast.core.layers.places import first_tensor, with_first

# Where rounding decides, as behind a ReLU near 0, plain PyTorch in float32 is as far off: it may be that much worse.
SLACK, FLOOR = 4, 1e-4
FAR, ROUNDING = 1e-2, 2.0**-24  # beyond which a network is asked how far it carries float32's rounding by itself


def logits(output: Any) -> Tensor:
    """The scores in what a network returns."""
    found = getattr(output, "logits", output)
    found = found.get("out", found.get("last_hidden_state")) if isinstance(found, dict) else found
    found = found[0] if isinstance(found, list | tuple) else found
    return found.flatten(2).mean(2) if found.ndim > 2 else found


def compare(
    record: dict[str, Any],
    method: str,
    photograph: Tensor,
    nets: tuple[nn.Module, nn.Module],
    ours: Callable[[Tensor], Tensor],
    theirs: Callable[..., Tensor],
    target: Callable[[Any], Tensor],
) -> None:
    """Notes how far a map is from that in float64, or what was said instead."""
    try:
        values = ours(photograph).double()
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        kind = "" if "`" in str(error) and isinstance(error, ValueError | TypeError) else "CRASHED "
        record["said"][method] = f"{kind}{type(error).__name__}: {first_line(error)}"
        return
    try:
        single, truth = (theirs(net, _as(net, photograph)).detach().double() for net in nets)
    except Exception as error:
        record["said"][method] = f"not compared: {first_line(error)}"
        return
    scale = truth.abs().max().clamp_min(1e-30)
    errors = {"ours": float((values - truth).abs().max() / scale)}
    errors["plain"] = float((single - truth).abs().max() / scale)
    record["errors"][method] = errors
    if errors["plain"] > FAR:
        noise = torch.randn(photograph.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        moved = theirs(nets[1], photograph.double() * (1 + ROUNDING * noise)).detach()
        errors["moved"] = float((moved - truth).abs().max() / scale)
    if _fits(errors):
        return
    record["said"][method] = "WRONG"
    layer = {"Saliency": None, "GradCAM": record["layer"]}.get(method, "")
    if layer == "" or _is_slope(nets[1], photograph.double(), target, layer, torch.autograd.grad):
        return
    # On CPUs torch 2.14 may run batch normalisation backward wrongly for one row.
    single, truth = (theirs(net, _as(net, photograph), grad=autograd.grad).detach().double() for net in nets)
    errors["ours"] = float((values - truth).abs().max() / truth.abs().max())
    errors["plain"] = float((single - truth).abs().max() / truth.abs().max())
    if _fits(errors) and _is_slope(nets[1], photograph.double(), target, layer, autograd.grad):
        record["said"][method] = "plain PyTorch's gradient is off, by central differences"


def _fits(errors: dict[str, float]) -> bool:
    return errors["ours"] <= max(SLACK * errors["plain"], FLOOR)


def _is_slope(
    net: nn.Module, inputs: Tensor, target: Callable[[Any], Tensor], layer: str | None, grad: Callable[..., Any]
) -> bool:
    """Whether a gradient at the input, or at a layer, is how the score changes along some directions, in float64."""
    if layer is None:
        gradient = plain_gradient(net, inputs, target, grad)
    else:
        _, gradient = _at_layer(net, inputs, target, layer, grad)

    def score(shift: Tensor) -> Tensor:
        if layer is None:
            return target(net(inputs + shift)).sum()
        moved = net.get_submodule(layer.partition(":")[0])
        handle = moved.register_forward_hook(
            lambda _module, _args, output: with_first(output, first_tensor(output) + shift)
        )
        try:
            return target(net(inputs)).sum()
        finally:
            handle.remove()

    step, agree = 1e-7, 0
    with torch.no_grad():
        for direction in torch.randn(
            5, *gradient.shape, dtype=gradient.dtype, generator=torch.Generator().manual_seed(0)
        ):
            slope = (score(step * direction) - score(-step * direction)) / (2 * step)
            agree += bool((slope - (gradient * direction).sum()).abs() < 1e-3 * gradient.norm())
    return agree >= 3  # a ReLU may tip over on the way


class Score:
    """A target: one of the scores that `logits` finds."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, output: Any) -> Tensor:
        """(N,) from whatever the network returned."""
        return logits(output)[:, self.index]


def _as(net: nn.Module, inputs: Tensor) -> Tensor:
    return inputs.to(next(net.parameters()).dtype)


def plain_gradient(
    net: nn.Module, inputs: Tensor, target: Any, grad: Callable[..., Any] = torch.autograd.grad
) -> Tensor:
    inputs = inputs.clone().requires_grad_()
    (gradient,) = grad(target(net(inputs)).sum(), inputs)
    return gradient


@torch.no_grad()
def plain_occlusion(net: nn.Module, inputs: Tensor, target: Any, window: int) -> Tensor:
    clean, found = target(net(inputs)), torch.zeros_like(inputs[:, :1])
    for top in range(0, inputs.shape[2], window):
        for left in range(0, inputs.shape[3], window):
            place = (..., slice(top, top + window), slice(left, left + window))
            hidden = inputs.clone()
            hidden[place] = 0
            found[place] = clean - target(net(hidden))
    return found


def plain_cam(
    net: nn.Module,
    inputs: Tensor,
    target: Any,
    layer: str,
    grid: tuple[int, ...],
    grad: Callable[..., Any] = torch.autograd.grad,
) -> Tensor:
    activation, gradient = _at_layer(net, inputs, target, layer, grad)
    first, slope = channels_first(activation, grid), channels_first(gradient, grid)
    return (slope.mean((2, 3), keepdim=True) * first).sum(1, keepdim=True).relu()


def _at_layer(
    net: nn.Module, inputs: Tensor, target: Any, layer: str, grad: Callable[..., Any]
) -> tuple[Tensor, Tensor]:
    """What a layer returns, and the score's gradient there."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Any) -> Any:
        kept.append(first_tensor(output))
        return with_first(output, kept[-1].clone())  # what follows may write into it in place

    handle = net.get_submodule(layer.partition(":")[0]).register_forward_hook(keep)
    try:
        score = target(net(inputs.clone().requires_grad_()))
    finally:
        handle.remove()
    (gradient,) = grad(score.sum(), kept[0])
    return kept[0], gradient


def channels_first(values: Tensor, grid: tuple[int, ...]) -> Tensor:
    """(N, C, h, w) of what a layer returned, whose positions lie on a grid of (h, w)."""
    if values.ndim == 4 and values.shape[2:] == grid:
        return values
    if values.ndim == 4 and values.shape[1:3] == grid:
        return values.permute(0, 3, 1, 2)
    if values.ndim == 3 and values.shape[1] >= grid[0] * grid[1]:
        return values[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)
    raise ValueError(f"{tuple(values.shape)} as a grid of {grid}")


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
