"""Networks that have learnt something, with the twelve photographs that they learnt it from: for quality, not speed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from xai_fast.images.preprocess import Preprocess
from xai_fast.models.demo import CLASSES, PREPROCESS, demo_model, photographs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))


def _resnet18() -> nn.Module:
    from networks import trained_resnet18

    return trained_resnet18()  # the first time ever this trains it, for minutes


NETWORKS: dict[str, Callable[[], nn.Module]] = {"demo": demo_model, "resnet18": _resnet18}


def subjects(network: str, count: int = len(CLASSES), size: int = 224) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, the first photographs (count, 3, size, size) as it takes them, and what it predicts (count,)."""
    preprocess = Preprocess(resize=size, crop=size, mean=PREPROCESS.mean, std=PREPROCESS.std)
    model, inputs = NETWORKS[network](), torch.stack([preprocess(photo) for photo in photographs(CLASSES[:count])])
    with torch.no_grad():
        return model, inputs, torch.cat([model(part).argmax(1) for part in inputs.split(4)])
