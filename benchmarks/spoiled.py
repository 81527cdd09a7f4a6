"""A set of sound crops in which some pictures are spoiled on purpose, a few of each kind, and the network that saw it.

What is planted: pictures that are there twice (to the pixel, or small and compressed; mirrored, or turned and
compressed; with the same label, another one, or in the other split), pictures that are dark, bright, empty, blurred,
without colour, of an odd size or odd proportions, noise, photographs and drawings of what no class shows, each of
another thing, exchanged labels, and one class whose brightness rises from the first of its images to the last.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps
from planted_data import PREPROCESS, SIDE, WIDTHS, Made, kinds, made, trained

import xai_fast as xf
from xai_fast.audit.reading import AuditRun
from xai_fast.models.demo import CLASSES, DemoNetwork

EACH = 8
SERIES = 5
"""The class whose images are in an order that shows."""
TWINS = ("same to the pixel", "nearly the same", "with another label", "in the other split", "mirrored", "turned")
FAULTS = (
    *TWINS,
    *("dark", "bright", "next to empty", "blurred", "without colour", "of an odd size", "of odd proportions"),
    *("outlier", "of another thing", "wrong label"),
)
_THINGS = (
    "camera",
    "cell",
    "checkerboard",
    "clock",
    "colorwheel",
    "horse",
    "hubble_deep_field",
    "immunohistochemistry",
)
"""Pictures of scikit-image that are no class of the demonstration."""


@dataclass(frozen=True, eq=False)
class Spoiled:
    """The set with what is known of it.

    Attributes:
        data: its table.
        label: (n,) as it is told.
        planted: rows by kind of fault; of pictures that are there twice, both.
        model: what learned it.
        run: of its audit.
    """

    data: Path
    label: NDArray[np.integer]
    planted: dict[str, list[int]]
    model: DemoNetwork
    run: AuditRun

    @property
    def given(self) -> dict[str, Any]:
        """What `xf.audit.check` asks with."""
        return {"model": self.model, "data": self.data, "preprocess": PREPROCESS}


def spoiled(seed: int, folder: Path) -> Spoiled:
    """Makes it in a folder."""
    (kind,) = (one for one in kinds(seed) if one.name == "clean")
    clean, draws = made(kind, seed), np.random.default_rng(seed)
    pictures = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in clean.pictures]
    label, split = clean.true.numpy().copy(), np.where(draws.random(len(pictures)) < 0.25, "test", "train").astype("U5")
    series = np.flatnonzero(label == SERIES)
    for place, row in enumerate(series.tolist()):
        pictures[row] = Image.eval(pictures[row], lambda level, n=place: level * (0.55 + 0.6 * n / len(series)))
    free = iter(draws.permutation(np.flatnonzero(label != SERIES)).tolist())
    chosen = {fault: [next(free) for _ in range(EACH)] for fault in FAULTS}
    # To take the colour from a photograph that has none is no fault.
    coloured = (row for row in free if np.ptp(np.asarray(pictures[row]), axis=2).max() > 60)
    chosen["without colour"] = [next(coloured) for _ in range(EACH)]
    planted = {fault: list(rows) for fault, rows in chosen.items()}
    for fault in TWINS:
        for row in chosen[fault]:
            of = next(free)
            planted[fault].append(of)
            pictures[row] = _AGAIN.get(fault, Image.Image.copy)(pictures[of])
            other = fault == "in the other split"
            split[row] = {"train": "test", "test": "train"}[split[of]] if other else split[of]
            label[row] = (label[of] + 1) % len(CLASSES) if fault == "with another label" else label[of]
    for row in chosen["wrong label"]:
        label[row] = (label[row] + draws.integers(1, len(CLASSES))) % len(CLASSES)
    for row, thing in zip(chosen["of another thing"], _THINGS, strict=True):
        pictures[row] = _thing(thing)
    for fault, spoil in _SPOILING.items():
        for row in chosen[fault]:
            pictures[row] = spoil(pictures[row], draws)
    data = _written(folder / "pictures", pictures, label, split)
    views = torch.from_numpy(np.stack([np.array(PREPROCESS.view(one).convert("RGB")) for one in pictures]))
    views = views.permute(0, 3, 1, 2).contiguous()
    found = replace(clean, pictures=views, first=views, label=torch.from_numpy(label))
    model = _learned(found, seed, folder / "weights.pt")
    run = xf.audit(
        model, data, preprocess=PREPROCESS, methods="GradCAM", out=folder / "run", classes=CLASSES, workers=1
    )
    return Spoiled(data, label, planted, model, run)


def _learned(found: Made, seed: int, weights: Path) -> DemoNetwork:
    if not weights.exists():
        model = trained(found, seed)
        torch.save(model.state_dict(), weights)
        return model
    model = DemoNetwork(len(CLASSES), WIDTHS)
    model.load_state_dict(torch.load(weights))
    return model.eval()


def _smaller(picture: Image.Image) -> Image.Image:
    """Made smaller and larger again, a little brighter, and compressed."""
    side = round(0.8 * SIDE)
    again = picture.resize((side, side), Image.Resampling.LANCZOS).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    Image.eval(again, lambda level: min(level + 6, 255)).save(file, "JPEG", quality=75)
    return Image.open(file).convert("RGB")


_AGAIN: dict[str, Callable[[Image.Image], Image.Image]] = {
    "nearly the same": _smaller,
    "mirrored": ImageOps.mirror,
    "turned": lambda picture: _smaller(picture.transpose(Image.Transpose.ROTATE_90)),
}


def _thing(name: str) -> Image.Image:
    """The middle of one of scikit-image's pictures."""
    found = Image.fromarray(skimage.util.img_as_ubyte(getattr(skimage.data, name)())).convert("RGB")
    return ImageOps.fit(found, (SIDE, SIDE), Image.Resampling.LANCZOS)


def _noise(_picture: Image.Image, draws: np.random.Generator) -> Image.Image:
    """What no photograph shows."""
    return Image.fromarray(draws.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


def _flat(picture: Image.Image, draws: np.random.Generator) -> Image.Image:
    return Image.new("RGB", picture.size, tuple(draws.integers(0, 256, 3).tolist()))


_SPOILING: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "dark": lambda picture, _: Image.eval(picture, lambda level: level * 0.2),
    "bright": lambda picture, _: Image.eval(picture, lambda level: 246 + level * 9 / 255),
    "next to empty": _flat,
    "blurred": lambda picture, _: picture.filter(ImageFilter.GaussianBlur(5)),
    "without colour": lambda picture, _: picture.convert("L"),
    "of an odd size": lambda picture, _: picture.resize((8 * SIDE, 8 * SIDE), Image.Resampling.NEAREST),
    "of odd proportions": lambda picture, _: picture.resize((4 * SIDE, SIDE), Image.Resampling.BICUBIC),
    "outlier": _noise,
}


def _written(folder: Path, pictures: list[Image.Image], label: np.ndarray, split: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number:05d}.png", compress_level=1)
    with open(folder / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        rows = zip(label.tolist(), split.tolist(), strict=True)
        writer.writerows([f"{number:05d}.png", CLASSES[one], part] for number, (one, part) in enumerate(rows))
    return folder / "labels.csv"
