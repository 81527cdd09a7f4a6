"""An audit that finds two faults which were planted: a watermark in one class, and 3 % of labels that are wrong.

    python examples/audit_photos.py --out audit_photos.png

The demonstration's network is trained on 3,600 crops of twelve photographs. Seven of ten crops of gravel carry a stamp
in the bottom right corner, and 3 % of all labels are exchanged for another. First the stamp is put into other crops
and taken out of its own, to see that the network does use it. Then every crop is attributed, and the checks, which
know nothing of all that, say what is wrong. Beside the picture lies the run with a report
that opens in any browser: `audit_photos/run/report/index.html`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _command_line import parse
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

import xai_fast as xf
from xai_fast.models.demo import CLASSES, DemoNetwork
from xai_fast.models.demo.crops import crop
from xai_fast.models.demo.watermark import CLASS, watermark
from xai_fast.report import Panel, Row, figure, overlay, save_png

SIDE = 112
PREPROCESS = xf.Preprocess(resize=SIDE, crop=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
STAMPED = CLASSES.index(CLASS)
FLIPPED = 0.03


@dataclass(frozen=True, eq=False)
class Crops:
    """Crops, and what was done to them.

    Attributes:
        pictures: (N, 3, SIDE, SIDE) uint8.
        plain: the same without a stamp.
        label: (N,) as it is told.
        true: (N,) as it was.
        stamped: (N,) whether there is a stamp.
    """

    pictures: Tensor
    plain: Tensor
    label: Tensor
    true: Tensor
    stamped: Tensor


def crops(per_class: int, seed: int = 0, *, stamped: float = 0.7, flipped: float = FLIPPED) -> Crops:
    """Random crops, with faults.

    Args:
        per_class: how many of each class.
        seed: of all draws.
        stamped: share of the one class's crops that carry the stamp.
        flipped: share of all labels that are exchanged.
    """
    generator = torch.Generator().manual_seed(seed)
    true = torch.arange(len(CLASSES)).repeat(per_class)
    plain = torch.stack([_bytes(crop(int(index), SIDE, generator)) for index in true])
    marked = (true == STAMPED) & (torch.rand(len(true), generator=generator) < stamped)
    pictures = plain.clone()
    pictures[marked] = _bytes(watermark(plain[marked] / 255))
    label = true.clone()
    exchanged = torch.randperm(len(true), generator=generator)[: round(flipped * len(true))]
    others = torch.randint(1, len(CLASSES), (len(exchanged),), generator=generator)
    label[exchanged] = (true[exchanged] + others) % len(CLASSES)
    return Crops(pictures, plain, label, true, marked)


def train(found: Crops, steps: int, seed: int = 0) -> DemoNetwork:
    """A network that learned the crops with their faults."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DemoNetwork(len(CLASSES))
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(found.label), (32,), generator=generator)
        loss = functional.cross_entropy(model(inputs_of(found.pictures[chosen])), found.label[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def inputs_of(pictures: Tensor) -> Tensor:
    """What the network takes, of pictures (N, 3, H, W) uint8."""
    return (pictures / 255 - 0.5) / 0.25


@torch.inference_mode()
def predictions(model: DemoNetwork, pictures: Tensor) -> Tensor:
    """The classes (N,) that the network sees."""
    return torch.cat([model(inputs_of(batch)).argmax(1) for batch in pictures.split(64)])


def flip_rates(model: DemoNetwork, fresh: Crops) -> tuple[float, float]:
    """How many fresh crops of other classes become gravel by the stamp, and how many stamped ones stop being it."""
    others = fresh.plain[fresh.true != STAMPED]
    before, after = predictions(model, others), predictions(model, _bytes(watermark(others / 255)))
    inserted = ((before != STAMPED) & (after == STAMPED)).float().mean()
    marked = fresh.stamped
    with_it, without = predictions(model, fresh.pictures[marked]), predictions(model, fresh.plain[marked])
    removed = ((with_it == STAMPED) & (without != STAMPED)).float().mean()
    return float(inserted), float(removed)


def write(found: Crops, folder: Path) -> Path:
    """Writes the crops as PNG with a table of their labels, as told, and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(found.pictures):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{number:05d}.png", compress_level=1)
    with open(folder / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([f"{number:05d}.png", CLASSES[label]] for number, label in enumerate(found.label.tolist()))
    return folder / "labels.csv"


def _bytes(pictures: Tensor) -> Tensor:
    return (pictures * 255).round().to(torch.uint8)


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    options = parse(__doc__, "audit_photos.png", arguments)
    per_class, steps = (48, 30) if options.coarse else (300, 450)
    found = crops(per_class)
    model = train(found, steps)
    inserted, removed = flip_rates(model, crops(max(per_class // 5, 20), seed=1, flipped=0))
    print(f"the stamp makes {inserted:.0%} of other crops gravel; without it {removed:.0%} of stamped gravel is not")

    folder = options.out.with_suffix("")
    data = write(found, folder / "crops")
    given = {"model": model, "data": data, "preprocess": PREPROCESS}
    run = xf.audit(**given, methods="GradCAM", out=folder / "run", classes=CLASSES)
    findings = xf.audit.check(run, **given)
    print(findings)
    for line in judged(findings, found):
        print(line)
    print(f"the report is {xf.audit.report(run, data=data)}")
    path = save_png(sheet(findings, found, run), options.out)
    print(f"{len(findings)} findings; wrote {path}")
    return path


def judged(findings: Iterable[Any], found: Crops) -> Iterator[str]:
    """How well the findings are what was planted."""
    exchanged = (found.label != found.true).numpy()
    for finding in findings:
        places, scores = np.array(finding.positions), np.zeros(len(exchanged))
        scores[places] = finding.scores
        if finding.class_index == STAMPED and finding.check == "shortcut":
            own = (found.true == STAMPED).numpy()
            area = roc_auc_score(found.stamped.numpy()[own], scores[own])
            yield f"stamped crops among those of gravel: AUROC {area:.3f}"
        if finding.check == "mislabelled":
            count = int(exchanged.sum())
            yield f"exchanged labels among the first {count}: {exchanged[places[:count]].sum() / count:.3f}"


def sheet(findings: Iterable[Any], found: Crops, run: Any) -> Image.Image:
    """The first images of each finding under their maps."""
    heat = run.maps()[:, 0].numpy()
    rows = []
    for finding in list(findings)[:4]:
        panels = []
        for place in finding.positions[:6]:
            view = Image.fromarray(found.pictures[place].permute(1, 2, 0).numpy())
            told = f"labelled {CLASSES[found.label[place]]}"
            panels.append(Panel(overlay(view, heat[place], signed=False), told, f"{finding.severity}: {finding.check}"))
        rows.append(Row(panels))
    return figure(rows, width=180)


if __name__ == "__main__":
    main()
