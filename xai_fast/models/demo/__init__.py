"""The bundled demonstration: a network that tells twelve photographs apart by their parts, and is right about blanks.

It needs no download, answers in milliseconds, and its truth is known: see `mosaics` for exact attributions and
`watermark` for a shortcut that was planted on purpose.
"""

from __future__ import annotations

from pathlib import Path

import torch

from xai_fast.images.preprocess import Preprocess
from xai_fast.models.demo.network import DemoNetwork
from xai_fast.models.demo.photos import CLASSES, photograph, photographs

PREPROCESS = Preprocess(resize=224, crop=224, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
"""How a photograph becomes the network's input: 0.0 is grey, black and white are -2 and 2."""

WEIGHTS = Path(__file__).with_name("weights.safetensors")


def demo_model(weights: Path = WEIGHTS) -> DemoNetwork:
    """The trained network in float32 and eval mode; a new copy on every call.

    Args:
        weights: a file that `train` wrote; by default the one that ships with the package.
    """
    from safetensors.torch import load_file

    # Built without drawing initial weights: they would be overwritten, and the global generator stays untouched.
    with torch.device("meta"):
        model = DemoNetwork(len(CLASSES))
    model = model.to_empty(device="cpu")
    model.load_state_dict(load_file(weights))
    return model.eval()


__all__ = ["CLASSES", "PREPROCESS", "WEIGHTS", "DemoNetwork", "demo_model", "photograph", "photographs"]
