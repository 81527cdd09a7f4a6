"""What class activation maps share: choosing layers, smoothing, fusing, and bringing maps to the input's size."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from xai_fast.core.layers import Grid as LayerGrid
from xai_fast.core.layers import Layer, checked_grid, layer_names
from xai_fast.engine import Cost, Recipe
from xai_fast.engine.evaluate import Evaluate, LayerActivation, LayerCurvature, LayerResponse
from xai_fast.engine.reducers.cam import ClassActivation, Draw, Fuse
from xai_fast.engine.samplers.augmented import Augmented
from xai_fast.engine.samplers.layer import LayerChange
from xai_fast.methods.base import AbstractMethod, Resolution

from .formulas import Formula


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AbstractCAM(AbstractMethod):
    """A map read at one or more layers, each drawn on the layer's grid, resized and fused.

    Args:
        model: a module or an `Engine`.
        layer: "auto" (the deepest map on which the score depends; several where a detector reads them), a name
            ("relu:2": its second call; "norm:input": what goes in), a module, or a list of them.
        grid: how what a layer returns lies over the input, where that is not clear from how it answers: the extents
            (h, w), or a function from (N, ...) to (N, C, h, w), which is applied to gradients as well.
        fuse: how the maps of several layers become one, each finished and resized first: "max" or "mean".
        aug_smooth: mean over six passes: the input and its mirror image, times 0.9, 1 and 1.1 (from grad-cam).
    """

    layer: Layer = "auto"
    grid: LayerGrid = None
    fuse: Literal["max", "mean"] = "max"
    aug_smooth: bool = False

    def layers(self, inputs: Tensor) -> tuple[str, ...]:
        """The layers that the map is read at."""
        return self.engine.layers(self.layer, inputs, several=True)

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """The layers' responses to the clean input, and to its augmented variants where asked for."""
        layers = self.layers(inputs)
        readings = self.engine.readings(layers, inputs, self.grid)
        variants = Augmented(inputs) if self.aug_smooth else None
        reducer = ClassActivation(
            self._draw(),
            readings,
            n_samples=len(inputs),
            size=tuple(inputs.shape[2:]),
            native=resolution == "native",
            fuse=self._fuse(),
            variants=variants,
            ids=sample_ids,
        )
        question = self._question(layers)
        read = dict(zip(layers, readings, strict=True))
        return Recipe(
            reduce=reducer,
            clean=question,
            variants=variants,
            evaluate=question,
            change=self._change(),
            readings=read,
        )

    @abstractmethod
    def _draw(self) -> Draw:
        """What the map of one layer is."""

    def _question(self, layers: tuple[str, ...]) -> Evaluate:
        """What is asked about the layers."""
        return LayerActivation(layers)

    def _change(self) -> LayerChange | None:
        """How the layers' outputs are changed; None where they are only looked at."""
        return None

    def _fuse(self) -> Fuse:
        """How the maps of several layers become one."""
        return self.fuse

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        passes = 1 + (Augmented.PER_INPUT if self.aug_smooth else 0)
        change = self._change()
        if change is None:
            return Cost(forwards=passes, backwards=passes * self._question(()).backwards)
        noise = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
        layers = self.layers(noise)
        readings = self.engine.readings(layers, noise, self.grid)
        activations = self.engine.activations(layers, shape)
        changes = sum(map(change.count, activations, readings))
        return Cost(forwards=passes * (1 + changes))

    def _check(self) -> None:
        if self.fuse not in ("max", "mean"):
            raise ValueError(f'`fuse` came as {self.fuse!r}; give "max" or "mean"')
        object.__setattr__(self, "grid", checked_grid(self.grid))
        if not (isinstance(self.layer, str) and self.layer == "auto"):
            names = layer_names(self.engine.model, self.layer)
            object.__setattr__(self, "layer", names[0] if len(names) == 1 else list(names))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AbstractFormulaCAM(AbstractCAM):
    """The ReLU of a formula of one layer's response; the subclass gives the formula.

    Args:
        signed: the formula without its ReLU, whose negative values speak against the target.
    """

    signed: bool = False  # pyright: ignore[reportIncompatibleMethodOverride] - a setting here

    formula: ClassVar[Formula]

    def _formula(self) -> Formula:
        return type(self).formula

    def _draw(self) -> Draw:
        return self._formula().draw(relu=not self.signed)

    def _question(self, layers: tuple[str, ...]) -> Evaluate:
        asks = self._formula().asks
        if asks == "curvature":
            return LayerCurvature(layers)
        return LayerResponse(layers) if asks == "gradient" else LayerActivation(layers)

    def _check(self) -> None:
        super()._check()
        if not isinstance(self.signed, bool):
            raise ValueError(f"`signed` came as {self.signed!r}; give True or False")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AbstractWeightedCAM(AbstractFormulaCAM):
    """ReLU(Σ_k w_k A_k) at a layer; the subclass gives the weights.

    Args:
        eigen_smooth: the map becomes the first principal component of the weighted activations (from grad-cam); its
            arbitrary sign is chosen so that it correlates positively with their sum.
    """

    eigen_smooth: bool = False

    def _draw(self) -> Draw:
        return self._formula().draw(eigen=self.eigen_smooth, relu=not self.signed)
