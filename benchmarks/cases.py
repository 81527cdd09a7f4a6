"""What is measured against what: one entry per method, network and library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peers
from case import Case, Method, Model, Part
from peers import Peer
from perturbation_cases import PERTURBATION_CASES
from torch import Tensor

import xai_fast as xf

NOISE = 0.15  # of SmoothGrad: its standard deviation as a share of the image's range


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


def _cam_case(name: str, method: Callable[[str], Method], peer: str, layer: str, bar: float | None) -> Case:
    return Case(
        f"{name}-resnet50",
        "resnet50",
        method(layer),
        "grad-cam",
        peers.gradcam_method(peer)(layer),
        bar=bar,
        scaled=True,
    )


def _torchcam_case(name: str, method: Any, peer: str) -> Case:
    peer_of = peers.torchcam_method(peer)("layer4")
    return Case(
        f"{name}-resnet50-torchcam", "resnet50", _on(method)("layer4"), "torchcam", peer_of, bar=1.3, scaled=True
    )


def _score_case(library: str, peer: Callable[[str], Peer], default: int) -> Case:
    """The smaller network: the libraries take as many forwards as we do, 512 of them."""
    return Case(
        "score-cam-resnet18" + ("" if library == "torchcam" else f"-{library}"),
        "resnet18",
        _on(xf.ScoreCAM)("layer4"),
        library,
        peer("layer4"),
        default=default,
        sweep=(8, 16, 32),
        bar=1.3,
        bar_growth=0.5e9,
        scaled=True,
    )


def _on(method: Any, **settings: Any) -> Callable[[str], Method]:
    return lambda layer: lambda model: method(model, layer=layer, **settings)


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


def _references(size: int) -> Callable[[], Tensor]:
    """Two photographs that no case explains."""

    def read() -> Tensor:
        from networks import photos

        return photos(3, size)[1:]

    return read


def integrated_gradients(network: str, bar: float, bar_default: float, size: int = 224, n_steps: int = 50) -> Case:
    """Against captum with all points in one batch, which is its default, and in batches of fewer."""
    return Case(
        f"integrated-gradients-{network}",
        network,
        lambda model: xf.IntegratedGradients(model, n_steps=n_steps),
        "captum",
        peers.captum_integrated_gradients(n_steps),
        **_all_at_once(n_steps, bar, bar_default, size),
    )


def smooth_grad(network: str, bar: float, bar_default: float, size: int = 224, n_samples: int = 50) -> Case:
    """Against captum's tunnel around its signed saliency, with the paper's noise; likewise."""

    def method(model: Model) -> xf.SmoothGrad:
        return xf.SmoothGrad(model, n_samples=n_samples, noise=NOISE)

    return Case(
        f"smooth-grad-{network}",
        network,
        method,
        "captum",
        peers.captum_smooth_grad(n_samples, NOISE),
        same_draws=peers.on_our_draws(method, peers.captum_gradients),
        **_all_at_once(n_samples, bar, bar_default, size),
    )


def gradient_shap(network: str, bar: float, bar_default: float, size: int = 224, n_samples: int = 50) -> Case:
    """Against captum, which always runs all samples in one batch: its best is several calls with fewer, averaged."""
    references = _references(size)

    def method(model: Model) -> xf.GradientShap:
        return xf.GradientShap(model, baselines=references(), n_samples=n_samples)

    return Case(
        f"gradient-shap-{network}",
        network,
        method,
        "captum",
        peers.captum_gradient_shap(n_samples, references),
        same_draws=peers.on_our_draws(method, peers.captum_gradients),
        notes=("captum has no batch setting here: settings other than its default are calls with that many samples",),
        **_all_at_once(n_samples, bar, bar_default, size),
    )


def shap_gradient(
    network: str, bar: float, bar_default: float, size: int = 224, n_samples: int = 200, outputs: int = 5
) -> Case:
    """Against shap's GradientExplainer on the highest outputs, for each of which it does all its work again."""
    references, rows = _references(size), min(50, n_samples)

    def method(n: int) -> Method:
        return lambda model: xf.GradientShap(model, baselines=references(), n_samples=n)

    few = method(min(8, n_samples))
    return Case(
        f"gradient-shap-{network}-shap",
        network,
        method(n_samples),
        "shap",
        peers.shap_gradient_explainer(n_samples, references),
        default=rows,
        sweep=tuple(sorted({4, 8, 16, rows})),
        size=size,
        bar=bar,
        bar_default=bar_default,
        part=Part(1, outputs, "outputs", batched=False),
        precise=few,
        same_draws=peers.on_our_draws(few, peers.shap_gradients(references)),
        outputs=outputs,
    )


def _all_at_once(rows: int, bar: float, bar_default: float, size: int) -> dict[str, Any]:
    """What the comparisons with captum share, whose default is all `rows` at once."""
    return {
        "default": rows,
        "sweep": tuple(sorted({n for n in (1, 4, 8, 16, 32) if n < rows} | {rows})),
        "size": size,
        "bar": bar,
        "bar_default": bar_default,
        "bar_growth": 0.8e9,
    }


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
    _cam_case("gradcam-plus-plus", _on(xf.GradCAMPlusPlus), "GradCAMPlusPlus", "layer4", 4.0),
    _cam_case("layer-cam", _on(xf.LayerCAM), "LayerCAM", "layer4", 4.0),
    _cam_case("hirescam", _on(xf.HiResCAM), "HiResCAM", "layer4", 4.0),
    _cam_case("xgradcam", _on(xf.XGradCAM), "XGradCAM", "layer4", 4.0),
    _cam_case("gradcam-elementwise", _on(xf.GradCAMElementWise), "GradCAMElementWise", "layer4", 4.0),
    _torchcam_case("gradcam-plus-plus", xf.GradCAMPlusPlus, "GradCAMpp"),
    _torchcam_case("layer-cam", xf.LayerCAM, "LayerCAM"),
    _torchcam_case("xgradcam", xf.XGradCAM, "XGradCAM"),
    _cam_case("eigen-cam", _on(xf.EigenCAM), "EigenCAM", "layer4", 8.0),
    _cam_case("seg-eigen-cam", _on(xf.SegEigenCAM), "SegEigenCAM", "layer4", 8.0),
    _cam_case("full-grad", lambda _layer: xf.FullGrad, "FullGrad", "layer4", 20.0),
    _score_case("torchcam", peers.torchcam_score, 32),
    _score_case("grad-cam", peers.gradcam_score, 16),
    Case("attention-rollout-vit_b_16", "vit_b_16", xf.AttentionRollout, "torch", peers.torch_rollout),
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
    integrated_gradients("resnet50", 1.6, 2.5),
    integrated_gradients("resnet18", 1.4, 1.8),
    smooth_grad("resnet50", 1.6, 2.5),
    smooth_grad("resnet18", 1.4, 1.8),
    gradient_shap("resnet50", 1.6, 2.5),
    gradient_shap("resnet18", 1.4, 1.8),
    shap_gradient("resnet50", 2.0, 6.0, n_samples=50),
    shap_gradient("resnet18", 2.0, 3.0),
    *PERTURBATION_CASES,
)
