"""Guided Grad-CAM: the fine lines of guided backpropagation where Grad-CAM sees the class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from xai_fast.core.layers import Grid, Layer
from xai_fast.engine import Cost, Recipe
from xai_fast.engine.evaluate import Answers, Both, InputGradient, LayerResponse
from xai_fast.engine.reducers.cam import grid_of
from xai_fast.engine.samplers.path import Source

from .cam.formulas import FORMULAS
from .gradient import AbstractGradientMethod, Asked


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GuidedGradCAM(AbstractGradientMethod):
    r"""Guided backpropagation times Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, section 3.2).

    .. math:: A = R \odot \mathrm{up}\Bigl(\mathrm{ReLU}\bigl(\textstyle\sum_k \alpha_k A_k\bigr)\Bigr)

    R is the map of `GuidedBackprop`, the second factor that of `GradCAM`, resized bilinearly as in the paper (captum
    takes the nearest value unless told otherwise).

    Values are signed as R is, in units of the score squared per unit of input: none of those that methods share, and
    so the flag says "none".

    Args:
        model: a module or an `Engine`; a plain callable has no layers.
        layer: of Grad-CAM: "auto" (the deepest map on which the score depends), a name or a module.
        grid: of Grad-CAM: (h, w), or a function from the layer's activation to (N, C, h, w), where it is not clear.

    Returns (`attribute`): (N, C, *S).

    Cost: two rows forward and two backward per input, one pair for each factor.
    """

    layer: Layer | None = "auto"
    grid: Grid = None

    @property
    def per_pixel(self) -> bool:
        """Of the input, whichever layer Grad-CAM looks at."""
        return True

    def asked(self, source: Source, inputs: Tensor) -> Asked:
        """Both factors of each sample."""
        size, layers = tuple(inputs.shape[2:]), self.layers(inputs)
        (reading,) = self.engine.readings(layers, inputs, self.grid)
        draw = FORMULAS["GradCAM"].draw()

        def parts(rows: Tensor, answers: Answers) -> tuple[Tensor, Tensor]:
            assert answers.gradient is not None
            cam = draw(grid_of(answers.responses[0], reading), size)
            return answers.gradient * cam[:, :, None], rows

        return Asked(source, Both(InputGradient("guided"), LayerResponse(layers)), parts)

    def on_grid(self, recipe: Recipe, inputs: Tensor) -> Recipe:
        """Itself: the map is one of the input, and `grid` is Grad-CAM's."""
        return recipe

    def per_sample(self, shape: tuple[int, ...]) -> Cost:
        """Two, both ways."""
        return Cost(forwards=2, backwards=2)

    def _check(self) -> None:
        if self.layer is None:
            raise ValueError('`layer` came as None, and Grad-CAM needs one; give "auto", a name or a module')
        super()._check()
