"""Filter activation: where in an image does a filter of some layer fire?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from xai_fast.core.layers import Grid, Layer, checked_grid
from xai_fast.core.objective import Objective
from xai_fast.engine import Cost, Recipe
from xai_fast.engine.evaluate import Answers
from xai_fast.engine.evaluate.prefix import ChannelMaps
from xai_fast.engine.reducers.clean import CleanFormula
from xai_fast.engine.run import Outcome
from xai_fast.images.pictures import as_bytes
from xai_fast.results.filter_maps import FilterMaps, resized

from .base import AbstractMethod, Resolution
from .filters import Filters, checked_filters, checked_layer, filters_of, no_score


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FilterActivation(AbstractMethod):
    r"""The activation of single filters over the positions of a layer (Zeiler and Fergus 2014, arXiv:1311.2901).

    .. math:: M_k(s) = A_{k,s}

    Nothing is scaled, rectified or summed: these are the numbers that the layer returns. They are signed where the
    layer can be negative, are about no class, and sum to nothing. The paper shows them beside the patches that drive a
    filter most.

    Args:
        model: a module or an `Engine`; a plain callable has no layers.
        layer: "auto" (the deepest map on which the output depends), a name or a module. ViT tokens (N, T, C), without
            class, register and query tokens, and Swin grids (N, h, w, C) are found by how they answer to the input. In
            a layer without positions, (N, features), a filter is a feature, with one position.
        grid: how the layer's output lies over the input, where that is not clear: (h, w), or a function from it to
            (N, C, h, w).
        filters: the filters' numbers: one, several, or None for all. Their axis is there even for one.

    Returns (`attribute`): (N, F, *S) resized to the input, bilinear with `align_corners=False`; with
    `resolution="native"` (N, F, *s) on the layer's own grid. All filters of a wide layer at the size of the input
    are large: 512 of them for one image of 224 x 224 take 103 MB, and 0.4 MB at 14 x 14.

    Calling the method gives `FilterMaps`, which keeps the native maps, draws and saves them.

    Cost: one row forward per input, which ends at the layer. A new input shape costs another row, of noise.

    Raises:
        ValueError: an unknown layer or filter, a layer whose output is no grid, or a `target`.
    """

    layer: Layer = "auto"
    grid: Grid = None
    filters: Filters = None

    def __call__(self, inputs: Tensor, target: None = None) -> FilterMaps:  # type: ignore[override] - its own result
        """The activations with what they are about, and ways to draw and save them.

        Args:
            inputs: (N, C, *S), floating, in the space the model sees.
            target: has no meaning here.
        """
        outcome, _ = self._run(inputs, target, "native", None)
        name, _, numbers = filters_of(self.engine, self.layer, self.grid, self.filters, inputs)
        return FilterMaps(
            values=outcome.values,
            layer=name,
            filters=tuple(numbers),
            size=tuple(inputs.shape[2:]),
            method=repr(self),
            evaluations=outcome.evaluations,
            photos=as_bytes(inputs, self.engine.preprocess),
            seconds=outcome.seconds,
            preprocess=self.engine.preprocess,
        )

    def layers(self, inputs: Tensor) -> tuple[str, ...]:
        """The layer."""
        return self.engine.layers(self.layer, inputs)

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """One pass over the clean inputs, as far as the layer."""
        layer, reading, numbers = filters_of(self.engine, self.layer, self.grid, self.filters, inputs)
        size = tuple(inputs.shape[2:])

        def maps(_sample: Tensor, answers: Answers) -> Tensor:
            native = answers.responses[0].activation
            return (native if resolution == "native" else resized(native, size))[:, None]

        return Recipe(clean=ChannelMaps(layer, torch.tensor(numbers), reading), reduce=CleanFormula(maps))

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        return Cost(forwards=1)

    def _run(
        self, inputs: Tensor, target: Any, resolution: Resolution, sample_ids: Tensor | None
    ) -> tuple[Outcome, Objective]:
        if target is not None:
            raise ValueError(
                f"`target` came as {target!r}, and a filter's activation is about no class; leave it out, "
                "and choose what to look at with `filters`"
            )
        return super()._run(inputs, no_score, resolution, sample_ids)

    def _check(self) -> None:
        object.__setattr__(self, "layer", checked_layer(self.engine, self.layer))
        object.__setattr__(self, "grid", checked_grid(self.grid))
        object.__setattr__(self, "filters", checked_filters(self.filters))
