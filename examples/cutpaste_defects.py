"""Where is the defect? Networks that saw no defect, only cut-and-pasted texture, and the maps of their anomaly score.

    python examples/cutpaste_defects.py --out cutpaste_defects.png

CutPaste (Li et al. 2021, arXiv:2104.04015): small networks learn to tell real textures (brick, grass and gravel, the
left part of each photograph) from the same ones with a piece cut out and pasted elsewhere. On the right part, defects
of kinds that they have never met, scratches and stains, are planted and looked for. What is explained is no class but
an anomaly score, a function of a network's output, by LayerCAM at three depths. A single network finds the defects more
or less well, as luck has it in its training (0.85 to 0.98 over four); three of them, each map brought to a largest
value of 1 and averaged, find them all. How surely the mean ranks defective pixels first (AUROC over all pixels of 50
defects) is printed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _command_line import parse
from skimage import data
from sklearn.metrics import roc_auc_score
from torch import Generator, Tensor, nn
from torch.nn import functional as F

import xai_fast as xf
from xai_fast.report import Panel, Row, as_photo, figure, save_png

TEXTURES = (data.brick, data.grass, data.gravel)
SIDE = 64
LAYERS = ["body.0", "body.2", "body.4"]
KINDS = ("scratch", "stain")
NETWORKS = 3


def _between(generator: Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def texture(make: Callable[[], Any], count: int, generator: Generator, *, unseen: bool) -> Tensor:
    """Random squares (count, 1, 64, 64) of the left part of a photograph, or of the part that is kept for testing."""
    photo = F.avg_pool2d(torch.tensor(make()).float()[None] / 255, 2)
    height, width = photo.shape[1:]
    first, last = (width // 2, width - SIDE) if unseen else (0, width // 2 - SIDE)
    between, found = partial(_between, generator), []
    for _ in range(count):
        top, left = int(between(0, height - SIDE)), int(between(first, last))
        square = photo[:, top : top + SIDE, left : left + SIDE]
        found.append(square.flip(2) if between(0, 1) < 0.5 else square)
    return torch.stack(found)


def cut_and_pasted(images: Tensor, generator: Generator) -> Tensor:
    """Each image with a rectangle or a narrow scar of itself, of other contrast and brightness, pasted elsewhere."""
    between = partial(_between, generator)
    pasted = images.clone()
    for image in pasted:
        if between(0, 1) < 0.5:
            area, ratio = between(0.015, 0.1) * SIDE**2, math.exp(between(-1.2, 1.2))
            wide, high = (min(SIDE - 2, max(4, int((area * one) ** 0.5))) for one in (ratio, 1 / ratio))
        else:
            wide, high = int(between(2, 7)), int(between(10, 30))
            wide, high = (wide, high) if between(0, 1) < 0.5 else (high, wide)
        (top, there), (left, here) = ([int(between(0, SIDE - one)) for _ in range(2)] for one in (high, wide))
        piece = image[:, top : top + high, left : left + wide].clone()
        piece = (piece - piece.mean()) * between(0.3, 1.7) + piece.mean() + between(-0.4, 0.4)
        image[:, there : there + high, here : here + wide] = piece.clamp(0, 1)
    return pasted


def planted(images: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Each image with a scratch or a stain, in turn, and masks (N, 64, 64) of where it is."""
    between = partial(_between, generator)
    rows, columns = torch.meshgrid(torch.arange(SIDE).float(), torch.arange(SIDE).float(), indexing="ij")
    spoilt, masks = images.clone(), []
    for n, image in enumerate(spoilt):
        row, column, angle = between(16, SIDE - 16), between(16, SIDE - 16), between(0, math.pi)
        across, along = math.cos(angle), math.sin(angle)
        bright = 1 if between(0, 1) < 0.5 else 0
        if KINDS[n % 2] == "scratch":  # a curved line
            steps, length, bend, width = torch.linspace(-1, 1, 200), between(10, 20), between(-8, 8), between(1.2, 2.2)
            x = column + length * steps * across - bend * steps**2 * along
            y = row + length * steps * along + bend * steps**2 * across
            distance = ((rows[..., None] - y) ** 2 + (columns[..., None] - x) ** 2).amin(2).sqrt()
            strength, inside = 0.8 * (width + 0.5 - distance).clamp(0, 1), distance < width
        else:  # an ellipse with soft edges
            u = ((columns - column) * across + (rows - row) * along) / between(5, 9)
            v = ((rows - row) * across - (columns - column) * along) / between(5, 9)
            strength, inside = 0.6 * (1.3 - u**2 - v**2).clamp(0, 1), u**2 + v**2 < 1
        image[0] = image[0] * (1 - strength) + (0.05 + 0.9 * bright) * strength
        masks.append(inside)
    return spoilt, torch.stack(masks)


class Network(nn.Module):
    """(N, 1, H, W) to logits (N, 2): as it was taken, or pasted together."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((1, 16, 2), (16, 32, 1), (32, 32, 2), (32, 48, 1), (48, 48, 1))
        self.body = nn.Sequential(*(_block(*one) for one in sizes))
        self.fc = nn.Linear(48, 2)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.fc(self.body(x - 0.5).mean((2, 3)))


def _block(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def trained(steps: int, seed: int) -> nn.Module:
    """A network after so many steps on textures and their pasted copies."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = Network()
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-2, total_steps=steps)
    for _ in range(steps):
        real = torch.cat([texture(make, 6, generator, unseen=False) for make in TEXTURES])
        both = torch.cat([real, cut_and_pasted(real, generator)]) * (0.95 + 0.1 * torch.rand(2 * len(real), 1, 1, 1))
        loss = F.cross_entropy(model(both), torch.arange(2).repeat_interleave(len(real)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def anomaly(logits: Tensor) -> Tensor:
    """How much rather pasted together than as it was taken."""
    return logits[:, 1] - logits[:, 0]


def defects(count: int) -> tuple[Tensor, Tensor]:
    """Unseen textures with planted defects, and where these are."""
    generator = torch.Generator().manual_seed(99)
    clean = torch.cat([texture(make, -(-count // 3), generator, unseen=True) for make in TEXTURES])[:count]
    return planted(clean, generator)


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    options = parse(__doc__, "cutpaste_defects.png", arguments)
    models = [trained(4 if options.coarse else 160, seed) for seed in range(NETWORKS)]
    images, masks = defects(12 if options.coarse else 50)
    plain = xf.Preprocess(resize=SIDE, crop=SIDE, mean=(0.0,), std=(1.0,))
    every = [
        xf.LayerCAM(xf.Engine(model, preprocess=plain), layer=LAYERS, fuse="mean")(images, anomaly) for model in models
    ]
    scaled = [one.values / one.values.flatten(1).amax(1).view(-1, 1, 1, 1).clamp_min(1e-12) for one in every]
    found = dataclasses.replace(every[0], values=torch.stack(scaled).mean(0), units="none")
    surely = roc_auc_score(masks.flatten().numpy(), found.values.flatten().numpy())

    chosen = [0, 1, len(images) // 2, len(images) // 2 + 1, len(images) - 2, len(images) - 1]
    views, drawn = found.views(images), found.panels(found.views(images))
    rows = []
    for n in chosen:
        truth = as_photo((masks[n].numpy() * 255).astype("uint8"))
        rows.append(Row([Panel(views[n], KINDS[n % 2]), Panel(truth, "planted here"), drawn[n][0]]))
    half = len(rows) // 2
    pairs = [Row([*one.panels, *other.panels]) for one, other in zip(rows[:half], rows[half:], strict=True)]
    path = save_png(figure(pairs), options.out)
    print(f"AUROC {surely:.3f} over the pixels of {len(images)} unseen defects; wrote {path}")
    return path


if __name__ == "__main__":
    main()
