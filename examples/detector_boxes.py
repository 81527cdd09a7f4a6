"""Why does a detector see something there? One map per box, of a torchvision detector that was taught to find coins.

    python examples/detector_boxes.py --out detector_boxes.png

A small FCOS is trained on the left part of a photograph of Greek coins and explained on the right one. The target is
how surely it still finds the box that is drawn (`xf.targets.detection`), here the detector's own surest ones. LayerCAM
looks at every level that the detector's head reads; D-RISE and Occlusion see the detector from outside. Other coins in
the picture do not matter to a box; what lies beside it does.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from _command_line import parse
from skimage import data, filters, measure, morphology
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator

import xai_fast as xf
from xai_fast.report import Row, figure, save_png

SIDE = 128
SPLIT = 210  # the column from which on nothing was trained on


class Pyramid(nn.Module):
    """Two maps of 32 channels, at an eighth and a sixteenth of the picture's size."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_block(3, 16), *_block(16, 24))
        self.fine, self.coarse = nn.Sequential(*_block(24, 32)), nn.Sequential(*_block(32, 32))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Both, the finer one first."""
        fine = self.fine(self.stem(x))
        return OrderedDict([("0", fine), ("1", self.coarse(fine))])


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def coins() -> tuple[Tensor, Tensor]:
    """The photograph (3, 303, 384) in [0, 1], and the boxes (n, 4) of its coins."""
    photo = data.coins()
    inside = morphology.closing(photo > filters.threshold_local(photo, 151), morphology.disk(3))
    found = measure.regionprops(measure.label(morphology.opening(inside, morphology.disk(6))))
    boxes = [one.bbox for one in found if 25 < min(one.bbox[2] - one.bbox[0], one.bbox[3] - one.bbox[1]) < 80]
    return torch.tensor(photo).float().expand(3, -1, -1) / 255, torch.tensor(boxes).float()[:, [1, 0, 3, 2]]


def crop(photo: Tensor, boxes: Tensor, top: int, left: int) -> tuple[Tensor, Tensor]:
    """A square of the photograph, and the boxes of the coins that lie in it by more than half."""
    inside = boxes - torch.tensor([left, top, left, top])
    cut = inside.clamp(0, SIDE)
    whole, seen = ((one[:, 2:] - one[:, :2]).prod(1) for one in (inside, cut))
    return photo[:, top : top + SIDE, left : left + SIDE], cut[seen > 0.5 * whole]


def detector(steps: int) -> nn.Module:
    """A torchvision FCOS, trained for so many steps on crops of the photograph's left part."""
    torch.manual_seed(0)
    photo, boxes = coins()
    anchors = AnchorGenerator(sizes=((8,), (16,)), aspect_ratios=((1.0,),) * 2)
    few = {"score_thresh": 0.0, "detections_per_img": 20, "topk_candidates": 100}
    model = FCOS(Pyramid(), num_classes=2, anchor_generator=anchors, min_size=SIDE, max_size=SIDE, **few)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps)
    model.train()
    for _ in range(steps):
        images, truths = [], []
        while len(images) < 4:
            top, left = int(torch.randint(photo.shape[1] - SIDE, ())), int(torch.randint(SPLIT - SIDE, ()))
            image, around = crop(photo, boxes, top, left)
            if len(around):
                images.append((image - 0.5) * (0.7 + 0.6 * torch.rand(())) + 0.5)
                truths.append({"boxes": around, "labels": torch.ones(len(around)).long()})
        loss = torch.stack(list(model(images, truths).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    options = parse(__doc__, "detector_boxes.png", arguments)
    model = detector(3 if options.coarse else 150)
    photo, boxes = coins()
    inputs = torch.stack([crop(photo, boxes, top, photo.shape[2] - SIDE)[0] for top in (20, 150)[: 2 - options.coarse]])

    plain = xf.Preprocess(resize=SIDE, crop=SIDE, mean=(0.0,) * 3, std=(1.0,) * 3)
    engine = xf.Engine(model, preprocess=plain, classes=("background", "coin"))
    methods = [
        xf.LayerCAM(engine),
        xf.DRISE(engine, n_masks=40 if options.coarse else 800, cells=10, baseline=0.5, centred=True),
        xf.Occlusion(engine, window=24, stride=24 if options.coarse else 8, baseline=0.5),
    ]
    target = xf.targets.detection(n_boxes=1 if options.coarse else 3)
    found = []
    for method in methods:
        found.append(method(inputs, target))
        target = found[0].target  # the boxes that the first method settled
    views = found[0].views(inputs)
    rows = [Row([panel for of_input in one.panels(views) for panel in of_input]) for one in found]
    path = save_png(figure(rows), options.out)
    print(f"{sum(int(one.evaluations.sum()) for one in found)} model rows; wrote {path}")
    return path


if __name__ == "__main__":
    main()
