"""What is measured against what: one entry per method, network and library, each side a function without arguments."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import xai_fast as xf

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: for the command line and the records.
        network: a torchvision name, awakened.
        size: side of the square input, in pixels.
        batch: number of photographs.
        method: makes our method for a model.
        library: name and version source of the peer.
        peer: (model, inputs, target, setting) to the peer's map, in our shape.
        default: the library's own setting.
        sweep: settings of which the best counts; (default,) where the library has none.
        bar: warm ratio that an issue asks for over the best setting; None where none does.
        precise: our method on a coarser grid, for the comparison with float64; None to use `method`.
        precise_peer: the peer likewise.
    """

    name: str
    network: str
    method: Callable[[nn.Module | xf.Engine], Any]
    library: str
    peer: Callable[[nn.Module, Tensor, Tensor, int], Tensor]
    default: int = 1
    sweep: tuple[int, ...] = (1,)
    size: int = 224
    batch: int = 1
    bar: float | None = None
    precise: Callable[[nn.Module | xf.Engine], Any] | None = None
    precise_peer: Callable[[nn.Module, Tensor, Tensor, int], Tensor] | None = None
    notes: tuple[str, ...] = field(default=())


def network(case: Case) -> nn.Module:
    """The case's network, awake, in eval mode."""
    from networks import awakened

    return awakened(case.network)


def inputs(case: Case) -> Tensor:
    """The case's photographs, normalised: (batch, 3, size, size)."""
    from networks import photos

    return photos(case.batch, case.size)


def _captum_occlusion(window: int, stride: int) -> Callable[[nn.Module, Tensor, Tensor, int], Tensor]:
    def attribute(model: nn.Module, x: Tensor, target: Tensor, per_eval: int) -> Tensor:
        from captum.attr import Occlusion

        values = Occlusion(model).attribute(
            x, (3, window, window), (3, stride, stride), target=target, perturbations_per_eval=per_eval
        )
        return values[:, :1]  # all channels of a window that spans them are equal

    return attribute


def _captum_saliency(model: nn.Module, x: Tensor, target: Tensor, _setting: int) -> Tensor:
    from captum.attr import Saliency

    return Saliency(model).attribute(x.clone().requires_grad_(), target=target)


def _captum_input_x_gradient(model: nn.Module, x: Tensor, target: Tensor, _setting: int) -> Tensor:
    from captum.attr import InputXGradient

    return InputXGradient(model).attribute(x.clone().requires_grad_(), target=target).detach()


def _captum_gradcam(model: nn.Module, x: Tensor, target: Tensor, _setting: int) -> Tensor:
    from captum.attr import LayerGradCam

    grid = LayerGradCam(model, model.layer4).attribute(x, target=target, relu_attributions=True)
    return F.interpolate(grid.detach(), x.shape[2:], mode="bilinear", align_corners=False)


def _occlusion(window: int, stride: int) -> Callable[[nn.Module | xf.Engine], Any]:
    return lambda model: xf.Occlusion(model, window=window, stride=stride)


CASES = (
    Case(
        "occlusion-resnet50",
        "resnet50",
        _occlusion(15, 8),
        "captum",
        _captum_occlusion(15, 8),
        sweep=(1, 4, 8, 16, 32),
        bar=1.2,
        precise=_occlusion(56, 28),
        precise_peer=_captum_occlusion(56, 28),
    ),
    Case(
        "occlusion-resnet18",
        "resnet18",
        _occlusion(15, 8),
        "captum",
        _captum_occlusion(15, 8),
        sweep=(1, 4, 8, 16, 32),
        precise=_occlusion(56, 28),
        precise_peer=_captum_occlusion(56, 28),
    ),
    Case("saliency-resnet50", "resnet50", xf.Saliency, "captum", _captum_saliency),
    Case("input-x-gradient-resnet50", "resnet50", xf.InputXGradient, "captum", _captum_input_x_gradient),
    Case("gradcam-resnet50", "resnet50", lambda m: xf.GradCAM(m, layer="layer4"), "captum", _captum_gradcam),
    Case(
        "gradcam-resnet50-16", "resnet50", lambda m: xf.GradCAM(m, layer="layer4"), "captum", _captum_gradcam, batch=16
    ),
)


def targets(case: Case, model: nn.Module, x: Tensor) -> Tensor:
    """The predicted classes, settled once so that both sides explain the same."""
    with torch.no_grad():
        return model(x).argmax(1)
