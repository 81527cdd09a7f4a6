"""Recipro-CAM: what is the score when only the surroundings of one position of a late layer are left?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from xai_fast.engine.reducers.cam import Draw, scored_positions
from xai_fast.engine.samplers.layer import LayerChange, RevealedPositions

from .base import AbstractCAM


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ReciproCAM(AbstractCAM):
    r"""Reciprocal class activation map (Byun and Lee 2022, arXiv:2209.14074, section 3).

    .. math:: L_p = f(A \odot m_p) - f(A \odot 0)

    where :math:`m_p` is a mask over the positions of the layer's output, around p. Needs no gradient.

    The paper scales the scores f(A ⊙ m_p) to [0, 1] by their smallest and largest; here the score of the empty layer is
    subtracted instead, so that values keep their unit and their sign. The picture is the same.

    Values are signed, in units of the score, positive where a position alone raises it.

    Args:
        model: a module or an `Engine`; a plain callable has no layers.
        layer: "auto" (the deepest map that the score depends on, several of a detector's pyramid), a name ("relu:2":
            its second call; "norm:input": what goes in), a module, or a list.
        grid: where it is not clear from how a layer answers to the input (channels first or last, tokens of any kind):
            its extents (h, w), or a function from (N, ...) to (N, C, h, w). Tokens beside the grid stay as they are.
        fuse: how the maps of several layers become one, each resized first: "max" or "mean".
        aug_smooth: mean over six passes: the input and its mirror image, times 0.9, 1 and 1.1.
        gaussian: the mask is (1/4, 1/2, 1/4) along every axis around p, as the paper prefers; False: p alone.

    Returns (`attribute`): (N, 1, H, W) at input resolution; with `resolution="native"` (N, 1, h, w) on the layer's own
    grid (the largest one of several).

    Cost: 2 + positions rows forward per input, layer and pass; what precedes the layer runs once per pass.

    Raises:
        ValueError: an unknown layer (before the model runs), or one whose output is no grid.
    """

    gaussian: bool = True

    def _draw(self) -> Draw:
        return scored_positions

    def _change(self) -> LayerChange:
        return RevealedPositions(self.gaussian)

    def _check(self) -> None:
        super()._check()
        if not isinstance(self.gaussian, bool):
            raise ValueError(f"`gaussian` came as {self.gaussian!r}; give True or False")
