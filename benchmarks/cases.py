"""What is measured against what: one entry per method, network and library."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import peers
import torch
from peers import Peer
from torch import Tensor, nn

import xai_fast as xf

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

Method = Callable[[nn.Module | xf.Engine], Any]


@dataclass(frozen=True)
class Part:
    """How a peer whose one call takes minutes is timed: on some of the units that its loop runs over.

    The seconds of a whole call are those of a call with no unit, plus what `units` add to it times `whole / units`.
    The peer's call takes the number of units as a third argument.

    Attributes:
        units: that are timed; a multiple of every setting of the sweep and a divisor of `whole`.
        whole: units of a whole call.
        unit: what one is called.
    """

    units: int
    whole: int
    unit: str = "channels"

    def __post_init__(self) -> None:
        assert self.whole % self.units == 0, "a last batch that is smaller would cost other than the ones that count"


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: for the command line and the records.
        network: a torchvision name, awakened.
        method: makes our method for an engine or a model.
        library: name and version source of the peer.
        peer: the peer, for a model of its own and a setting.
        default: the library's own setting.
        sweep: settings of which the best counts; (default,) where the library has none.
        size: side of the square input, in pixels.
        batch: number of photographs.
        bar: warm ratio that an issue asks for over the best setting; None where none does.
        bar_default: likewise over the library's default setting.
        plan: of our engine.
        part: the share of the peer's work that is timed; None for whole calls.
        scaled: the library scales each map to [0, 1], so ours and the truth are scaled likewise before errors are read.
        dense: the method asks the whole model about every row, so that a floor means something.
        precise: our method on a coarser grid, for the comparison with float64; None to use `method`.
        precise_peer: the peer likewise.
        precise_size: side of the input for the comparison with float64; None to use `size`.
        notes: conditions that belong to the figures.
    """

    name: str
    network: str
    method: Method
    library: str
    peer: Peer
    default: int = 1
    sweep: tuple[int, ...] = (1,)
    size: int = 224
    batch: int = 1
    bar: float | None = None
    bar_default: float | None = None
    plan: Literal["auto", "dense", "tail"] = "auto"
    part: Part | None = None
    scaled: bool = False
    dense: bool = True
    precise: Method | None = None
    precise_peer: Peer | None = None
    precise_size: int | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        assert self.default in self.sweep
        assert self.part is None or all(self.part.units % setting == 0 for setting in self.sweep)


def network(case: Case) -> nn.Module:
    """The case's network, awake, in eval mode; a fresh copy."""
    from networks import awakened

    return awakened(case.network)


def inputs(case: Case, size: int | None = None) -> Tensor:
    """The case's photographs, normalised: (batch, 3, size, size)."""
    from networks import photos

    return photos(case.batch, size or case.size)


def targets(model: nn.Module, x: Tensor) -> Tensor:
    """The predicted classes, settled once so that both sides explain the same."""
    with torch.no_grad():
        return model(x).argmax(1)


def _occlusion(window: int, stride: int) -> Method:
    return lambda model: xf.Occlusion(model, window=window, stride=stride)


def _gradcam(layer: str) -> Method:
    return lambda model: xf.GradCAM(model, layer=layer)


def _ablation(layer: str) -> Method:
    return lambda model: xf.AblationCAM(model, layer=layer)


def _occlusion_case(network: str, bar: float | None = None) -> Case:
    return Case(
        f"occlusion-{network}",
        network,
        _occlusion(15, 8),
        "captum",
        peers.captum_occlusion(15, 8),
        sweep=(1, 4, 8, 16, 32),
        bar=bar,
        plan="dense",
        precise=_occlusion(56, 28),
        precise_peer=peers.captum_occlusion(56, 28),
    )


def _gradcam_case(library: str, peer: Callable[[str], Peer], batch: int, bar: float | None, *, scaled: bool) -> Case:
    name = "gradcam-resnet50" + ("" if library == "captum" else f"-{library}") + ("" if batch == 1 else f"-{batch}")
    layer = "layer4"
    return Case(name, "resnet50", _gradcam(layer), library, peer(layer), batch=batch, bar=bar, scaled=scaled)


_ZERO = (
    "grad-cam removes a channel by writing 0 only where the layer's smallest value is 0, and its smallest value minus "
    "1e7 elsewhere: the two sides are equal at layers that end in a ReLU, and only there"
)


def _ablation_case(
    name: str, network: str, layer: str, channels: int, bar: float | None, bar_default: float, *notes: str
) -> Case:
    return Case(
        f"ablation-cam-{name}",
        network,
        _ablation(layer),
        "grad-cam",
        peers.gradcam_ablation(layer),
        default=32,
        sweep=(8, 16, 32, 64),
        bar=bar,
        bar_default=bar_default,
        part=Part(64, channels),
        scaled=True,
        dense=False,
        precise_size=64,  # one whole call of the peer has to run: a twelfth of the pixels
        notes=(_ZERO, *notes),
    )


CASES = (
    _occlusion_case("resnet50", bar=1.3),
    _occlusion_case("resnet18"),
    Case("saliency-resnet50", "resnet50", xf.Saliency, "captum", peers.captum_saliency),
    Case("input-x-gradient-resnet50", "resnet50", xf.InputXGradient, "captum", peers.captum_input_x_gradient),
    _gradcam_case("captum", peers.captum_gradcam, 1, None, scaled=False),
    _gradcam_case("captum", peers.captum_gradcam, 16, None, scaled=False),
    _gradcam_case("torchcam", peers.torchcam_gradcam, 1, 1.0, scaled=True),
    _gradcam_case("torchcam", peers.torchcam_gradcam, 16, 1.6, scaled=True),
    _gradcam_case("grad-cam", peers.gradcam_gradcam, 1, 2.5, scaled=True),
    _gradcam_case("grad-cam", peers.gradcam_gradcam, 16, 3.0, scaled=True),
    _ablation_case("resnet50", "resnet50", "layer4", 2048, 1000, 1500),
    _ablation_case("resnet50-layer3", "resnet50", "layer3.5", 1024, None, 8),
    _ablation_case(
        "vgg16",
        "vgg16",
        "features.29",
        512,
        None,
        200,
        "the layer is the ReLU after the last convolution, for the reason above",
    ),
)
