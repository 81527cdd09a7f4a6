"""Occlusion sensitivity: how far does the score fall when a window is hidden?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from xai_fast.engine import Cost, Recipe
from xai_fast.engine.reducers.coverage import CoverageMean
from xai_fast.engine.samplers.windows import HiddenWindows, Windows, check_extent, per_axis
from xai_fast.images.baselines import Baseline, check_baseline, resolve_baseline

from .base import AbstractMethod, Resolution

Extent = int | Sequence[int]


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Occlusion(AbstractMethod):
    r"""Sliding-window occlusion (Zeiler and Fergus 2014, arXiv:1311.2901, section 4.2).

    .. math:: A_i = \frac{\sum_{w \ni i} \bigl(f(x) - f(x_{\setminus w})\bigr)}{\#\{w \ni i\}}

    The windows lie on a grid from the first element on, ceil((D − window) / stride) + 1 of them along an axis; the last
    ones are cut at the border, so that every element is covered while stride ≤ window. Elements that no window covers
    (stride > window) are 0, and a window that would begin beyond the border is left out.

    Differs from the paper, which plots the score per window position: here each element gets the mean fall of the score
    over the windows that hide it, as in captum. Unlike captum, strides may exceed the window, and a float64 model gives
    a float64 map.

    Values are in units of the score, positive where hiding lowers it. They do not sum to anything.

    Args:
        model: a module, a callable or an `Engine`.
        window: extent of the hidden box in elements: an int or one per axis of S (all channels are hidden), or with the
            channel extent first, which gives a map per channel.
        stride: step of the grid, likewise; None tiles without overlap. An int or one per axis of S steps over all
            channels where the window spans them, else by the window's channel extent.
        baseline: what hidden elements become: a number or one per channel in the model's space (0.0 is the mean colour
            after ImageNet normalisation), a tensor that broadcasts to the inputs, "image_mean", "blur", "black" or
            "white".

    Returns (`attribute`): (N, 1, *S), or (N, C, *S) where the window has a channel extent.

    Cost: 1 + number of windows, in model rows forward per input; windows that already are the baseline everywhere are
    not run. Where the model can be captured, a row re-runs only the region of each layer that its window reaches (the
    local plan): exactly, for a half to a tenth of a whole run in convolutional networks. Memory grows by the clean
    activations of the inputs at hand, not with the number of windows.

    Raises:
        ValueError: a window larger than the input, or an extent that does not fit its axes; before the model runs.
    """

    window: Extent
    stride: Extent | None = None
    baseline: Baseline = 0.0

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """Windows hidden, scored, and averaged over coverage; the own grid is the input's."""
        windows = self._windows(tuple(inputs.shape[1:]))
        boxes = windows.boxes()
        channels = inputs.shape[1] if self._per_channel(inputs.ndim - 2) else 1
        baseline = resolve_baseline(self.baseline, inputs, self.engine.preprocess)
        return Recipe(
            variants=HiddenWindows(inputs, baseline, boxes),
            reduce=CoverageMean(len(inputs), boxes, (channels, *inputs.shape[2:])),
        )

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        return Cost(forwards=1 + len(self._windows(shape)))

    def _windows(self, shape: tuple[int, ...]) -> Windows:
        window = per_axis(self.window, shape, "window")
        stride = window if self.stride is None else per_axis(self.stride, shape, "stride", channels=window[0])
        for axis, (extent, available) in enumerate(zip(window, shape, strict=True)):
            if extent > available:
                raise ValueError(
                    f"`window` {self.window} is larger than the input {shape} along axis {axis}; "
                    f"give at most {shape[1:]} (or {shape} with channels)"
                )
        return Windows(shape, window, stride)

    def _per_channel(self, axes: int) -> bool:
        return not isinstance(self.window, int) and len(self.window) == axes + 1

    def _check(self) -> None:
        object.__setattr__(self, "window", check_extent(self.window, "window"))
        if self.stride is not None:
            object.__setattr__(self, "stride", check_extent(self.stride, "stride"))
        check_baseline(self.baseline)
