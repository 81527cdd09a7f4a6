"""What the scripts beside this file explain: a network with its photographs and classes, as the command line says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import torch
from PIL import Image
from torch import Tensor, nn

mpl.use("Agg")  # pictures go to files

sys.path.append(str(Path(__file__).resolve().parents[1]))

import _small_cnn

from xai_fast.models import demo

CLASSES, OWN_CLASSES = demo.CLASSES, _small_cnn.CLASSES


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True, help="the picture to write")
    parser.add_argument("--coarse", action="store_true", help="fewer steps and samples, for a quick look")
    return parser.parse_args()


def draws(full: int, coarse: int) -> int:
    """How many samples a script takes."""
    return coarse if options().coarse else full


def network() -> nn.Module:
    """A residual network that tells twelve photographs apart."""
    return demo.demo_model()


def picture(name: str) -> Image.Image:
    """A photograph as that network sees it, 224 pixels a side."""
    return demo.PREPROCESS.view(demo.photograph(name))


def photograph(name: str) -> Tensor:
    """The same as its input, (1, 3, 224, 224)."""
    return demo.PREPROCESS(demo.photograph(name))[None]


def predicted(model: nn.Module, inputs: Tensor) -> int:
    """The class of the highest score."""
    with torch.no_grad():
        return int(model(inputs).argmax())


def own_network() -> nn.Module:
    """A network of one's own for eleven classes, 128 pixels a side; the first to ask trains it."""
    return _small_cnn.load(options().out.parent, options().coarse)[0]


def own_picture(name: str) -> Image.Image:
    """A photograph as that network sees it."""
    return _small_cnn.PREPROCESS.view(_small_cnn.photograph(name))


def own_inputs(views: list[Image.Image]) -> Tensor:
    """Pictures of 128 pixels a side as its inputs."""
    return torch.stack([_small_cnn.PREPROCESS(view) for view in views])
