"""The input on which a run's model is made ready: always the same one, so that every process makes it alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from xai_fast.images.preprocess import Preprocess

from .decoding.pool import Decoders, Request
from .inputs import input_of
from .manifest import Manifest
from .sources.payload import Source

_LOOKED_AT = 64  # images of the manifest


def example_of(manifest: Manifest, source: Source, decoders: Decoders, preprocess: Any) -> Tensor:
    """(1, C, H, W): the first image that can be read, of the first few; noise, where there is none."""
    for row in manifest.rows(0, min(_LOOKED_AT, len(manifest))):
        (found,) = decoders.stream([Request(0, 0, lambda row=row: source.fetch(row))])
        if found.pixels is not None:
            try:
                return input_of(found.pixels, preprocess)[None]
            except Exception:  # of this image; a run says which fail
                continue
    return noise_of(preprocess)


def noise_of(preprocess: Any) -> Tensor:
    """(1, C, H, W): what a picture of noise is for the model."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8))
    pixels = np.asarray(preprocess.view(noise) if isinstance(preprocess, Preprocess) else noise)
    return input_of(pixels, preprocess)[None]
