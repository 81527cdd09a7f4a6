"""Our engine as the value function of shapiq 1.4: `game(model, image, segments)`, for any of its approximators.

A player is a segment of the image; a coalition's value is the score of the image with the other segments hidden.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xai_fast.core.targets import Target
from xai_fast.engine import Engine
from xai_fast.engine.responses import class_scores, variant_scores
from xai_fast.engine.samplers.coalitions import Coalitions, Table
from xai_fast.images.baselines import Baseline, resolve_baseline
from xai_fast.images.segments import Segments, check_segments, label_map

__all__ = ["game"]


def game(model: Any, image: Tensor, segments: Segments, *, target: Target = None, baseline: Baseline = 0.0) -> Any:
    """A `shapiq.Game` whose players are the segments of one image.

    Args:
        model: a `torch.nn.Module`, any callable, or an `Engine`.
        image: (1, C, H, W) or (C, H, W), in the space the model sees.
        segments: as for `KernelShap`: a name, a label map (H, W), or a callable.
        target: of the image: None (the class of its largest score), a class, or a function of the model's output.
        baseline: what hides a segment, as for every method.

    Returns:
        A game of as many players as there are segments, normalised: without any of them its value is 0. Every distinct
        coalition of one question runs once; values are in units of the score.

    Raises:
        ModuleNotFoundError: shapiq is not installed.
        TypeError, ValueError: an argument does not fit.
    """
    shapiq: Any = importlib.import_module("shapiq")  # heavy, and not installed with us

    inputs = image[None] if isinstance(image, Tensor) and image.ndim == 3 else image
    if not isinstance(inputs, Tensor) or inputs.ndim != 4 or len(inputs) != 1:
        shape = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f"`image` came as {shape}; give one image, (1, C, H, W) or (C, H, W)")
    engine = Engine.of(model)
    chosen = check_segments(segments, overlapping=False)
    labels = label_map(chosen, engine.adopt(inputs), engine.preprocess)
    players = int(labels.counts[0])
    about = int(class_scores(engine, inputs)[0].argmax()) if target is None else target

    def values(coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        shown = torch.from_numpy(np.ascontiguousarray(coalitions, dtype=bool))
        made: list[Coalitions] = []

        def variants_of(own: Tensor) -> Coalitions:
            hidden = resolve_baseline(baseline, own, engine.preprocess, labels)
            made.append(Coalitions(own, hidden, labels, Table(shown, torch.tensor([len(shown)]))))
            return made[-1]

        found = variant_scores(engine, variants_of, inputs, about)
        return found.cpu().double().numpy()[made[-1].row_of.numpy()]

    class SegmentsGame(shapiq.Game):
        """The scores of an image of which some segments are shown."""

        def value_function(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
            """Of coalitions (n, players)."""
            return values(coalitions)

    nothing = float(values(np.zeros((1, players), dtype=bool))[0])
    return SegmentsGame(players, normalize=True, normalization_value=nothing)
