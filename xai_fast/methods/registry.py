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
        signed: positive values support the target and negative ones speak against it; False: never negative.
        class_specific: another target gives another map.
        complete: what the map sums to; "" where it sums to nothing.
        units: "score", "score per input unit" or "none".
        summary: one sentence.
        cost: model rows per input, in words.
        paper: authors, year, arXiv number.
        starting: settings without a default of their own, for when the method is asked for by name alone.
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
)


def methods() -> dict[str, MethodInfo]:
    """Every method by name, as static data; `.cls` imports the class when it is read."""
    return {info.name: info for info in _METHODS}
