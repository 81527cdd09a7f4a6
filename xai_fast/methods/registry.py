"""Every method as static data: what the command line, the audit, the benchmarks and the tests read."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class MethodInfo:
    """What is true of a method under its default settings.

    Attributes:
        name: the class's name.
        module: where the class lives, below `xai_fast.methods`.
        kind: "pixels" (N, C, H, W), "map" (N, 1, H, W), "text", "concepts" or "filters".
        signed: positive values support the target and negative ones speak against it; False: never negative,
            as long as the scores are not.
        class_specific: another target gives another map.
        complete: what the map sums to; "" where it sums to nothing.
        units: "score", "score per input unit" or "none" (also what has units that are neither, as a product of both).
        summary: one sentence.
        cost: model rows per input, in words.
        paper: authors, year, arXiv number.
        starting: settings without a default of their own, for when the method is asked for by name alone.
        asks_truth: the target is the true class and must be given.
    """

    name: str
    module: str
    kind: Literal["pixels", "map", "text", "concepts", "filters"]
    signed: bool
    class_specific: bool
    complete: str
    units: str
    summary: str
    cost: str
    paper: str
    starting: Mapping[str, Any] = field(default_factory=dict)
    asks_truth: bool = False

    @property
    def attributes(self) -> bool:
        """Whether it attributes a score to an input, and not words, concepts or filters to something else."""
        return self.kind in ("pixels", "map")

    @property
    def cls(self) -> type[Any]:
        """The class; imported when this is read."""
        return getattr(importlib.import_module(f"xai_fast.methods.{self.module}"), self.name)


_METHODS = (
    MethodInfo(
        name="AblationCAM",
        module="cam.ablation_cam",
        kind="map",
        signed=False,
        class_specific=True,
        complete="",
        units="score",
        summary="which channels of a late layer the score cannot do without, and where they fire",
        cost="1 + channels forward from the layer on",
        paper="Desai and Ramaswamy 2020, WACV",
    ),
    MethodInfo(
        name="ActivationMaximization",
        module="activation_maximization",
        kind="filters",
        signed=False,
        class_specific=False,
        complete="",
        units="none",
        summary="what a filter wants to see: a picture that drives it as strongly as gradient ascent can",
        cost="8 + filters x (steps + 1) forward, filters x steps backward, as far as the layer",
        paper="Erhan et al. 2009, TR 1341, Université de Montréal",
        starting={"filters": 0},
    ),
    MethodInfo(
        name="DRISE",
        module="rise",
        kind="map",
        signed=False,
        class_specific=True,
        complete="",
        units="score",
        summary="how well an object is still found, on average, where a position is seen among random parts",
        cost="1 + masks forward",
        paper="Petsiuk et al. 2021, arXiv:2006.03204",
    ),
    MethodInfo(
        name="Deconvolution",
        module="deconvolution",
        kind="pixels",
        signed=True,
        class_specific=True,
        complete="",
        units="score per input unit",
        summary="what a deconvolutional network projects back to the input",
        cost="1 forward, 1 backward",
        paper="Zeiler and Fergus 2014, arXiv:1311.2901",
    ),
    MethodInfo(
        name="DeepLift",
        module="deep_lift",
        kind="pixels",
        signed=True,
        class_specific=True,
        complete="f(x) - f(reference)",
        units="score",
        summary="how the score's difference to that of a reference comes about",
        cost="3 forward, 1 backward",
        paper="Shrikumar et al. 2017, arXiv:1704.02685",
    ),
    MethodInfo(
        name="DeepLiftShap",
        module="deep_lift",
        kind="pixels",
        signed=True,
        class_specific=True,
        complete="f(x) - mean f(references)",
        units="score",
        summary="the mean of the maps of DeepLIFT over several references",
        cost="at most 1 + 2 references forward, references backward",
        paper="Lundberg and Lee 2017, arXiv:1705.07874",
    ),
    MethodInfo(
        name="ErrorAttribution",
        module="error_attribution",
        kind="pixels",
        signed=True,
        class_specific=True,
        complete="",
        units="score per input unit",
        summary="what pushes a wrong answer away from the true class",
        cost="1 forward, 1 backward; at a layer 52 forward and 50 backward of what follows it",
        paper="Sundararajan et al. 2017, arXiv:1703.01365",
        asks_truth=True,
    ),
    MethodInfo(
        name="FeatureAblation",
        module="feature_ablation",
        kind="map",
        signed=True,
        class_specific=True,
        complete="",
        units="score",
        summary="how far the score falls when a segment is hidden",
        cost="1 + segments forward",
        paper="Zeiler and Fergus 2014, arXiv:1311.2901",
        starting={"segments": "slic"},
    ),
    MethodInfo(
        name="FilterActivation",
        module="filter_activation",
        kind="filters",
        signed=True,
        class_specific=False,
        complete="",
        units="none",
        summary="where the filters of a layer fire",
        cost="1 forward, as far as the layer",
        paper="Zeiler and Fergus 2014, arXiv:1311.2901",
    ),
    MethodInfo(
        name="GradCAM",
        module="cam.gradcam",
        kind="map",
        signed=False,
        class_specific=True,
        complete="",
        units="score",
        summary="where a class's evidence lies, at the resolution of a late layer",
        cost="1 forward, part of a backward",
        paper="Selvaraju et al. 2017, arXiv:1610.02391",
    ),
    MethodInfo(
        name="GradientShap",
        module="gradient_shap",
        kind="pixels",
        signed=True,
        class_specific=True,
        complete="",
        units="score",
        summary="integrated gradients averaged over many baselines by random points",
        cost="1 + samples forward, samples backward",
        paper="Lundberg and Lee 2017, arXiv:1705.07874",
    ),
    MethodInfo(
        name="GuidedBackprop",
        module="guided_backprop",
        kind="pixels",
        signed=True,
        class_specific=True,
        complete="",
        units="score per input unit",
        summary="the gradient that only what is active and speaks for the score may pass",
        cost="1 forward, 1 backward",
        paper="Springenberg et al. 2014, arXiv:1412.6806",
    ),
    MethodInfo(
        name="GuidedGradCAM",
        module="guided_gradcam",
        kind="pixels",
        signed=True,
        class_specific=True,
        complete="",
        units="none",
        summary="the fine lines of guided backpropagation where Grad-CAM sees the class",
        cost="2 forward, 2 backward",
        paper="Selvaraju et al. 2017, arXiv:1610.02391",
    ),
    MethodInfo(
        name="InputXGradient",
        module="input_x_gradient",
        kind="pixels",
        signed=True,
        class_specific=True,
        complete="",
        units="score",
        summary="what each input element contributes, to first order",
        cost="1 forward, 1 backward",
        paper="Shrikumar et al. 2016, arXiv:1605.01713",
    ),
    MethodInfo(
        name="IntegratedGradients",
        module="integrated_gradients",
        kind="pixels",
        signed=True,
        class_specific=True,
        complete="f(x) - f(baseline)",
        units="score",
        summary="the gradient averaged over the way from a baseline, times that way",
        cost="2 + steps forward, steps backward",
        paper="Sundararajan et al. 2017, arXiv:1703.01365",
    ),
    MethodInfo(
        name="KernelShap",
        module="kernel_shap",
        kind="map",
        signed=True,
        class_specific=True,
        complete="f(x) - f(baseline), over segments",
        units="score",
        summary="the Shapley values of segments, by weighted regression over coalitions",
        cost="at most samples forward",
        paper="Lundberg and Lee 2017, arXiv:1705.07874",
        starting={"segments": "slic"},
    ),
    MethodInfo(
        name="Lime",
        module="lime",
        kind="map",
        signed=True,
        class_specific=True,
        complete="",
        units="score",
        summary="the linear model of segments that is closest to the score around the input",
        cost="at most samples forward",
        paper="Ribeiro et al. 2016, arXiv:1602.04938",
    ),
    MethodInfo(
        name="LimeText",
        module="text",
        kind="text",
        signed=True,
        class_specific=True,
        complete="",
        units="score",
        summary="which words speak for a class: the linear model of words that is closest to the score",
        cost="at most samples calls of the classifier",
        paper="Ribeiro et al. 2016, arXiv:1602.04938",
    ),
    MethodInfo(
        name="Occlusion",
        module="occlusion",
        kind="map",
        signed=True,
        class_specific=True,
        complete="",
        units="score",
        summary="how far the score falls when a window is hidden",
        cost="1 + windows forward",
        paper="Zeiler and Fergus 2014, arXiv:1311.2901",
        starting={"window": 32, "stride": 16},
    ),
    MethodInfo(
        name="PartitionShap",
        module="partition_shap",
        kind="map",
        signed=True,
        class_specific=True,
        complete="f(x) - f(baseline)",
        units="score",
        summary="how a score difference divides among the halves of an image, their halves, and so on",
        cost="n_evaluations forward, or as many as the hierarchy has",
        paper="Owen 1977; Lundberg and Lee 2017, arXiv:1705.07874",
    ),
    MethodInfo(
        name="RISE",
        module="rise",
        kind="map",
        signed=False,
        class_specific=True,
        complete="",
        units="score",
        summary="the mean score where a position is seen among random parts",
        cost="1 + masks forward",
        paper="Petsiuk et al. 2018, arXiv:1806.07421",
    ),
    MethodInfo(
        name="ReciproCAM",
        module="cam.recipro_cam",
        kind="map",
        signed=True,
        class_specific=True,
        complete="",
        units="score",
        summary="what the score is when a late layer keeps the surroundings of one position only",
        cost="2 + positions forward from the layer on",
        paper="Byun and Lee 2022, arXiv:2209.14074",
    ),
    MethodInfo(
        name="Saliency",
        module="saliency",
        kind="pixels",
        signed=False,
        class_specific=True,
        complete="",
        units="score per input unit",
        summary="how steeply the score changes with each input element",
        cost="1 forward, 1 backward",
        paper="Simonyan et al. 2013, arXiv:1312.6034",
    ),
    MethodInfo(
        name="ShapleySampling",
        module="shapley_sampling",
        kind="map",
        signed=True,
        class_specific=True,
        complete="f(x) - f(baseline), over segments",
        units="score",
        summary="the Shapley values of segments, by what each adds in random orders",
        cost="at most 2 + permutations x (segments - 1) forward",
        paper="Castro et al. 2009, doi:10.1016/j.cor.2008.04.004",
        starting={"segments": "slic"},
    ),
    MethodInfo(
        name="ShapleyText",
        module="text",
        kind="text",
        signed=True,
        class_specific=True,
        complete="f(text) - f(no words)",
        units="score",
        summary="the Shapley values of the words of a text",
        cost="at most samples calls of the classifier",
        paper="Lundberg and Lee 2017, arXiv:1705.07874",
    ),
    MethodInfo(
        name="SmoothGrad",
        module="smooth_grad",
        kind="pixels",
        signed=True,
        class_specific=True,
        complete="",
        units="score per input unit",
        summary="a gradient method's maps of many noisy copies of the input, averaged",
        cost="1 + samples forward, samples backward",
        paper="Smilkov et al. 2017, arXiv:1706.03825",
    ),
)


def methods() -> dict[str, MethodInfo]:
    """Every method by name, as static data; `.cls` imports the class when it is read."""
    return {info.name: info for info in _METHODS}
