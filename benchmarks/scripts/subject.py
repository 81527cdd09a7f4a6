"""What the scripts beside this file explain: a network, its weights and a photograph, as their command line says."""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.transforms.functional import normalize, to_tensor


def chosen() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="resnet50", help="as in torchvision.models")
    parser.add_argument("--weights", type=Path, required=True, help="its state, as torch.save wrote it")
    parser.add_argument("--photographs", type=Path, required=True, help="a folder of pictures; the first is explained")
    parser.add_argument("--size", type=int, default=224, help="side of the square that they are scaled to, in pixels")
    parser.add_argument("--double", action="store_true", help="the network computes in float64, whatever it is given")
    parser.add_argument("--out", type=Path, help="write the result here, as an array")
    return parser.parse_args()


def network() -> nn.Module:
    """The network with its weights, in eval mode; the same object for all scripts of one process."""
    asked = chosen()
    return _network(asked.network, asked.weights, asked.double)


@cache
def _network(name: str, weights: Path, double: bool) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # a script's draws are the same whether its network is there already
        model = torchvision.models.get_model(name, weights=None)
    model.load_state_dict(torch.load(weights, weights_only=True))
    if double:
        model.double().register_forward_pre_hook(lambda _module, given: tuple(one.double() for one in given))
    return model.eval()


def pixels(number: int = 0) -> np.ndarray:
    """A photograph as bytes, (size, size, 3)."""
    asked = chosen()
    path = sorted(asked.photographs.iterdir())[number]
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB").resize((asked.size, asked.size), Image.Resampling.BILINEAR))


def photograph(number: int = 0) -> torch.Tensor:
    """A photograph as the network sees it, (1, 3, size, size)."""
    return normalised(pixels(number))[None]


def normalised(bytes_: np.ndarray) -> torch.Tensor:
    """(3, H, W) with ImageNet's mean and standard deviation taken out."""
    return normalize(to_tensor(np.array(bytes_)), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def keep(result: Any) -> None:
    """Writes the result where the command line says."""
    values = result.detach().cpu().numpy() if isinstance(result, torch.Tensor) else np.asarray(result)
    if (out := chosen().out) is not None:
        np.save(out, values)
