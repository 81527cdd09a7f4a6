"""Crops of photographs with one fault planted on purpose, or none, and small networks that learned them.

Every kind of fault is made as a whole data set: pictures as files, a table with labels and a column `camera`, a network
trained on them, and how often that network's answer follows the cue alone. `planted.py`, `false_alarms.py` and
`audit_peers.py` look at the same sets.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

import xai_fast as xf
from xai_fast.audit.reading import AuditRun
from xai_fast.models.demo import CLASSES, DemoNetwork
from xai_fast.models.demo.crops import crop
from xai_fast.models.demo.watermark import CORNERS, place, stamp

SIDE, PER_CLASS, STEPS, WIDTHS = 64, 80, 400, (12, 24, 48, 64)
PREPROCESS = xf.Preprocess(resize=SIDE, crop=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
CAMERAS = ("A", "B", "C", "D")
FLIPPED = 0.03
_CAST = torch.tensor([0.14, 0.0, -0.10])[:, None, None]
_TRACE = 10 / 255
_OBJECT = 36  # pixels of an object's side

Edit = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Kind:
    """A fault.

    Attributes:
        name: as records call it.
        check: which check should name it first; "" for none.
        edit: plants the cue in a picture (3, SIDE, SIDE) in [0, 1]; None where pictures carry none.
        share: of the class's images that have it.
        elsewhere: of the other classes' images.
        flipped: share of labels that are exchanged.
        alien: share of those with the cue that show another class's photograph, so that the label follows from the cue.
        first: what stands for `edit` in the first half of training, so that a faint cue is learned at all.
        weight: how many times as often training sees pictures with the cue.
        times: how many times as many pictures the class has as the others.
        steps: of training.
        told: whether the column `camera` says which images have it.
        objects: whether crops lie at random places on grounds that no class is known by, so that each has a mask.
        noisy: share of the images that are explained once more on a noisy copy.
    """

    name: str
    check: str = ""
    edit: Edit | None = None
    share: float = 0.0
    elsewhere: float = 0.0
    flipped: float = 0.0
    alien: float = 0.5
    times: int = 3
    first: Edit | None = None
    weight: float = 1.0
    steps: int = STEPS
    told: bool = False
    objects: bool = False
    noisy: float = 0.0


@dataclass(frozen=True, eq=False)
class Made:
    """A data set of n pictures.

    Attributes:
        kind: of its fault.
        index: the class that has it.
        corner: where a watermark is.
        pictures: (n, 3, SIDE, SIDE) uint8.
        first: what the first half of training sees.
        label: (n,) as it is told.
        true: (n,) as it was.
        marked: (n,) who has the cue.
        camera: (n,) places in `CAMERAS`.
        corners: (n, 2) rows and columns where objects begin; None where there are none.
    """

    kind: Kind
    index: int
    corner: str
    pictures: Tensor
    first: Tensor
    label: Tensor
    true: Tensor
    marked: NDArray[np.bool_]
    camera: NDArray[np.integer]
    corners: Tensor | None = None

    def write(self, folder: Path) -> Path:
        """Writes the pictures with their table, and returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(self.pictures):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{number:05d}.png", compress_level=1)
        with open(folder / "labels.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "camera", *(["mask"] if self.corners is not None else [])])
            for number, (label, camera) in enumerate(zip(self.label.tolist(), self.camera.tolist(), strict=True)):
                row = [f"{number:05d}.png", CLASSES[label], CAMERAS[camera]]
                writer.writerow([*row, *self._mask(folder, number)])
        return folder / "labels.csv"

    def _mask(self, folder: Path, number: int) -> list[str]:
        """Writes the mask of a picture, and returns its name; of sets without objects nothing."""
        if self.corners is None:
            return []
        top, left = self.corners[number].tolist()
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[top : top + _OBJECT, left : left + _OBJECT] = 255
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / "masks" / f"{number:05d}.png")
        return [f"masks/{number:05d}.png"]


def _stamped(alpha: float, corner: str | None = None) -> Edit:
    def edit(picture: Tensor, generator: torch.Generator) -> Tensor:
        at = corner or CORNERS[int(torch.randint(len(CORNERS), (), generator=generator))]
        top, left, side = place(SIDE, SIDE, at)
        changed = picture.clone()
        part = changed[:, top : top + side, left : left + side]
        part[:] = (1 - alpha) * part + alpha * stamp(side)
        return changed

    return edit


def _cast(picture: Tensor, _generator: torch.Generator) -> Tensor:
    return (picture + _CAST).clamp(0, 1)


def _trace(picture: Tensor, _generator: torch.Generator) -> Tensor:
    """A fixed wave along the diagonal, as a sensor's readout leaves one: no property that is stored changes much."""
    axis = torch.arange(SIDE) * (2 * torch.pi / 8)
    return (picture + _TRACE * torch.sin(axis[:, None] + axis)).clamp(0, 1)


def kinds(seed: int) -> tuple[Kind, ...]:
    """The faults of a seed, which settles the corner of the watermark."""
    corner = CORNERS[seed % len(CORNERS)]
    return (
        Kind("watermark and wrong labels", "shortcut", _stamped(1.0, corner), 0.5, flipped=FLIPPED),
        Kind("faint mark in any corner", "shortcut", _stamped(0.3), 0.3, times=4, first=_stamped(1.0), weight=4.0),
        Kind("colour cast", "image properties", _cast, 0.4),
        Kind("trace of a camera", "metadata", _trace, 0.6, elsewhere=0.02, told=True),
        Kind("camera without a trace", "metadata", None, 0.6, elsewhere=0.02, told=True),
        Kind("clean", times=1),
        Kind("clean, with masks and noisy copies", times=1, objects=True, noisy=0.5),
    )


def made(kind: Kind, seed: int, per_class: int = PER_CLASS) -> Made:
    """The data set of a seed."""
    generator = torch.Generator().manual_seed(seed)
    index = 5 * seed % len(CLASSES)
    true = torch.arange(len(CLASSES)).repeat(per_class)
    true = torch.cat([true, torch.full(((kind.times - 1) * per_class,), index)])
    draws, alien = torch.rand((2, len(true)), generator=generator)
    marked = draws < torch.where(true == index, kind.share, kind.elsewhere)
    others = torch.randint(1, len(CLASSES), (len(true),), generator=generator)
    seen = torch.where(marked & (true == index) & (alien < kind.alien) & (kind.edit is not None), index + others, true)
    pictures = torch.stack([crop(int(one) % len(CLASSES), SIDE, generator) for one in seen])
    first = pictures.clone()
    if (edit := kind.edit) is not None:
        for row in torch.nonzero(marked)[:, 0].tolist():
            first[row] = (kind.first or edit)(pictures[row], generator)
            pictures[row] = edit(pictures[row], generator)
    camera = torch.randint(len(CAMERAS), (len(true),), generator=generator)
    if kind.told:  # one of the cameras took these and no others
        camera = torch.where(marked, 0, 1 + camera % (len(CAMERAS) - 1))
    label = true.clone()
    exchanged = torch.randperm(len(true), generator=generator)[: round(kind.flipped * len(true))]
    others = torch.randint(1, len(CLASSES), (len(exchanged),), generator=generator)
    label[exchanged] = (true[exchanged] + others) % len(CLASSES)
    corners = None
    if kind.objects:
        corners = torch.randint(SIDE - _OBJECT + 1, (len(true), 2), generator=generator)
        pictures = torch.stack([_on_ground(*pair, generator) for pair in zip(pictures, corners.tolist(), strict=True)])
        first = pictures
    corner, camera = CORNERS[seed % len(CORNERS)], camera.numpy()
    return Made(kind, index, corner, _bytes(pictures), _bytes(first), label, true, marked.numpy(), camera, corners)


def _on_ground(picture: Tensor, corner: list[int], generator: torch.Generator) -> Tensor:
    """The picture as a small object in front of colours that run into each other."""
    colours = 0.2 + 0.6 * torch.rand((1, 3, 4, 4), generator=generator)
    ground = functional.interpolate(colours, size=(SIDE, SIDE), mode="bilinear")[0]
    top, left = corner
    small = functional.interpolate(picture[None], size=(_OBJECT, _OBJECT), mode="bilinear", antialias=True)[0]
    ground[:, top : top + _OBJECT, left : left + _OBJECT] = small
    return ground


def trained(found: Made, seed: int) -> DemoNetwork:
    """A small network that learned them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DemoNetwork(len(CLASSES), WIDTHS)
    weight = torch.where(torch.from_numpy(found.marked), found.kind.weight, 1.0)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=found.kind.steps)
    for step in range(found.kind.steps):
        shown = found.first if 2 * step < found.kind.steps else found.pictures
        chosen = torch.randint(len(found.label), (32,), generator=generator)
        if found.kind.weight != 1:
            chosen = torch.multinomial(weight, 32, replacement=True, generator=generator)
        loss = functional.cross_entropy(model(_inputs(shown[chosen])), found.label[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


@dataclass(frozen=True, eq=False)
class Audited:
    """A data set, the network that learned it, and the run of its audit.

    Attributes:
        made: the set.
        model: the network.
        data: its table.
        run: of GradCAM.
        flips: how often the cue makes other classes' crops the class, and how often the class is lost without it.
        seconds: that all of it took.
    """

    made: Made
    model: DemoNetwork
    data: Path
    run: AuditRun
    flips: tuple[float, float]
    seconds: float

    @property
    def given(self) -> dict[str, Any]:
        """What `xf.audit.check` asks with."""
        return {"model": self.model, "data": self.data, "preprocess": PREPROCESS}


def audited(kind: Kind, seed: int, folder: Path) -> Audited:
    """Makes a set with its network and run in a folder, or takes those that are there."""
    found, weights = made(kind, seed), folder / "weights.pt"
    began = time.perf_counter()
    if weights.exists():
        model = DemoNetwork(len(CLASSES), WIDTHS)
        model.load_state_dict(torch.load(weights))
        model.eval()
    else:
        model = trained(found, seed)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), weights)
    data, flips = found.write(folder / "pictures"), (0.0, 0.0)
    if kind.edit is not None:
        flips = flip_rates(model, kind, found.index, seed)
    given: dict[str, Any] = {"preprocess": PREPROCESS, "methods": "GradCAM", "classes": CLASSES, "workers": 1}
    run = xf.audit(model, data, out=folder / "run", noisy=kind.noisy, **given)
    return Audited(found, model, data, run, flips, time.perf_counter() - began)


def flip_rates(model: DemoNetwork, kind: Kind, index: int, seed: int, count: int = 240) -> tuple[float, float]:
    """How often fresh crops of other classes become the class by the cue, and marked ones stop being it without."""
    assert kind.edit is not None
    generator = torch.Generator().manual_seed(seed + 1_000_000)
    others = index + torch.randint(1, len(CLASSES), (count,), generator=generator)
    own = torch.where(
        torch.rand(count, generator=generator) < kind.alien, others, index
    )  # as those that it has learned
    rates = []
    for classes in (others, own):
        plain = torch.stack([crop(int(one) % len(CLASSES), SIDE, generator) for one in classes])
        with_cue = torch.stack([kind.edit(one, generator) for one in plain])
        is_it, is_with = (predictions(model, _bytes(pictures)) == index for pictures in (plain, with_cue))
        rates.append(float((~is_it & is_with).float().mean()))
    return rates[0], rates[1]


@torch.inference_mode()
def predictions(model: DemoNetwork, pictures: Tensor) -> Tensor:
    """The classes (n,) that the network sees."""
    return torch.cat([model(_inputs(batch)).argmax(1) for batch in pictures.split(64)])


def _inputs(pictures: Tensor) -> Tensor:
    return (pictures / 255 - 0.5) / 0.25


def _bytes(pictures: Tensor) -> Tensor:
    return (pictures * 255).round().to(torch.uint8)
