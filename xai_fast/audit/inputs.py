"""What a model takes for a photograph that was decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from xai_fast.images.preprocess import Preprocess


def input_of(pixels: NDArray[np.uint8] | None, preprocess: Any) -> Tensor:
    """The model's input (C, H, W) for what a decoder returned."""
    assert pixels is not None
    picture = Image.fromarray(pixels)
    inputs = preprocess.normalised(picture) if isinstance(preprocess, Preprocess) else preprocess(picture)
    if not isinstance(inputs, Tensor) or inputs.ndim != 3:
        came = f"a tensor {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else f"a {type(inputs).__name__}"
        raise TypeError(f"`preprocess` returned {came}; it must return a tensor (C, H, W)")
    return inputs
