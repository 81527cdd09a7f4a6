"""Feature ablation: how far does the score fall when a segment is hidden?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from xai_fast.engine import Cost, Recipe
from xai_fast.engine.reducers.segments import MaskMeans, SegmentValues
from xai_fast.engine.samplers.masks import HiddenMasks
from xai_fast.engine.samplers.segments import HiddenSegments
from xai_fast.images.baselines import Baseline, check_baseline, resolve_baseline
from xai_fast.images.segments import SegmentMap, Segments, check_segments, most_segments, resolve_segments

from .base import AbstractMethod, Resolution


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FeatureAblation(AbstractMethod):
    r"""Ablation of groups of positions, one at a time (as Zeiler and Fergus 2014, arXiv:1311.2901, hide windows).

    .. math:: A_i = f(x) - f(x_{\setminus g(i)})

    where g(i) is the segment of position i. Every position of a segment carries the segment's value, not divided by
    its size; positions without a segment are 0, and where masks overlap a position has their mean.

    As captum's `FeatureAblation` with a mask over positions and all channels; unlike it, gaps in the ids cost nothing,
    every input may have segments of its own, and masks may overlap.

    Values are in units of the score, positive where hiding lowers it. They do not sum to anything.

    Args:
        model: a module, a callable or an `Engine`.
        segments: a label map, LongTensor (*S,) for every input or (N, *S), below 0 where there is no segment; boolean
            masks (K, *S) or (N, K, *S), which may overlap; a name: "slic", "quickshift", "felzenszwalb"
            (scikit-image's, on the picture that the model sees) or "grid" (8 cells along each axis); or a function from
            a picture, an array (*S, C) in [0, 1], to a label map. `xf.segments` makes maps of annotation pictures and
            masks of an instance-segmentation model's answers.
        baseline: what hidden elements become: a number or one per channel in the model's space (0.0 is the mean colour
            after ImageNet normalisation), a tensor that broadcasts to the inputs, "image_mean", "segment_mean" (each
            segment's own mean colour, of a label map), "blur", "black" or "white".

    Returns (`attribute`): (N, 1, *S).

    Cost: 1 + number of segments, in model rows forward per input; of a name or function, whose number the picture
    decides, `cost` states one per position. Segments that already are the baseline are not run. Where the model can
    be captured, a row re-runs only the region of each layer that the box around its segment reaches (the local plan).

    Raises:
        TypeError, ValueError: segments that do not fit the inputs; before the model runs.
    """

    segments: Segments
    baseline: Baseline = 0.0

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """Segments hidden and scored; the own grid is the input's."""
        segments = resolve_segments(self.segments, inputs, self.engine.preprocess)
        if isinstance(segments, SegmentMap):
            baseline = resolve_baseline(self.baseline, inputs, self.engine.preprocess, segments)
            return Recipe(variants=HiddenSegments(inputs, baseline, segments), reduce=SegmentValues(segments))
        baseline = resolve_baseline(self.baseline, inputs, self.engine.preprocess)
        masks = segments.to(inputs.device)
        return Recipe(variants=HiddenMasks(inputs, baseline, masks), reduce=MaskMeans(masks, len(inputs)))

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        return Cost(forwards=1 + most_segments(self.segments, shape))

    def _check(self) -> None:
        object.__setattr__(self, "segments", check_segments(self.segments))
        check_baseline(self.baseline, segmented=True)
