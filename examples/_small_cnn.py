"""A small CNN of one's own: trained for half a minute on crops of eleven real photographs, kept in a .pth file.

It stands for the network that a reader brings along: images 128 pixels a side in a folder, the label in each file's
name ("3_12.jpg" is picture 12 of class 3), and a checkpoint that nests its weights under "model_state_dict".
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch import Tensor, nn
from torch.nn import functional as F

import xai_fast as xf

SOURCES = {
    "astronaut": data.astronaut,
    "brick": data.brick,
    "camera": data.camera,
    "cat": data.cat,
    "coffee": data.coffee,
    "coins": data.coins,
    "galaxies": data.hubble_deep_field,
    "motorcycle": lambda: data.stereo_motorcycle()[0],
    "retina": data.retina,
    "rocket": data.rocket,
    "tissue": data.immunohistochemistry,
}
CLASSES = tuple(SOURCES)
SIDE = 128
PREPROCESS = xf.Preprocess(resize=SIDE, crop=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


class SmallCNN(nn.Module):
    """Convolutions in VGG's manner, then a mean over space and a linear layer: (N, 3, H, W) to logits (N, 11)."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
            *(*_block(16, 24), *_block(24, 24), nn.AvgPool2d(2)),
            *(*_block(24, 48), *_block(48, 48), nn.AvgPool2d(2)),
            *(*_block(48, 96), *_block(96, 96), nn.AdaptiveAvgPool2d(1)),
        )
        self.fc = nn.Linear(96, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.fc(self.cnn(x).flatten(1))


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def network() -> tuple[nn.Module, xf.Preprocess, tuple[str, ...]]:
    """The network without its weights, how a photograph becomes its input, and its classes."""
    return SmallCNN(), PREPROCESS, CLASSES


def photograph(name: str) -> Image.Image:
    """One of the eleven as it was taken, in RGB."""
    return Image.fromarray(SOURCES[name]()).convert("RGB")


def write_crops(folder: Path, per_class: int, seed: int = 0) -> None:
    """Random square crops of each photograph as LABEL_NUMBER.jpg, 128 pixels a side."""
    generator = np.random.default_rng(seed)
    for label, name in enumerate(CLASSES):
        photo = photograph(name)
        photo.thumbnail((512, 512))  # no crop shows more
        for number in range(per_class):
            side = int(min(photo.size) * generator.uniform(0.4, 0.9))
            left, top = (int(generator.integers(0, length - side + 1)) for length in photo.size)
            crop = photo.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            crop.save(folder / f"{label}_{number}.jpg", quality=95)


def read_crops(folder: Path) -> tuple[Tensor, Tensor]:
    """The inputs (N, 3, 128, 128) of a folder and the labels (N,) in the files' names."""
    files = sorted(folder.glob("*_*.jpg"), key=lambda file: [int(part) for part in file.stem.split("_")])
    inputs = torch.stack([PREPROCESS(Image.open(file)) for file in files])
    return inputs, torch.tensor([int(file.stem.partition("_")[0]) for file in files])


def load(folder: Path, coarse: bool = False) -> tuple[nn.Module, xf.Preprocess, tuple[str, ...]]:
    """The trained network with its preprocessing and classes.

    Args:
        folder: where the checkpoint is kept: loaded if it is there, else trained and written first.
        coarse: six steps of training, which learn next to nothing, in the place of 120.
    """
    steps = 6 if coarse else 120
    checkpoint = folder / f"small_cnn_{steps}_steps.pth"
    if not checkpoint.exists():
        with tempfile.TemporaryDirectory() as crops:
            write_crops(Path(crops), per_class=8 if coarse else 40)
            train(*read_crops(Path(crops)), steps, checkpoint)
    # Whatever the weights are nested under is found, and nothing but tensors is ever unpickled.
    model, *_ = xf.load(f"{__file__}:network", weights=checkpoint)
    return model, PREPROCESS, CLASSES


def train(inputs: Tensor, labels: Tensor, steps: int, checkpoint: Path) -> None:
    """Trains on mirrored copies at varying contrast and writes {"model_state_dict": ..., "step": ...}."""
    torch.manual_seed(0)
    model = SmallCNN()
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=5e-3, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (16,))
        batch = torch.where(torch.rand(16, 1, 1, 1) < 0.5, inputs[chosen], inputs[chosen].flip(3))
        loss = F.cross_entropy(model(batch * (0.7 + 0.6 * torch.rand(16, 1, 1, 1))), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model_state_dict": model.state_dict(), "step": steps}, checkpoint)
