"""Small detectors of the kinds that the target knows: torchvision's own classes on a tiny backbone, and a YOLO."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

KINDS = ("faster_rcnn", "retinanet", "fcos", "ssd", "yolo")
SIDE = 64
CLASSES = 4


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class Pyramid(nn.Module):
    """Two maps of 32 channels, at an eighth and a sixteenth of the input's size."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fine, self.coarse = _Block(3, 16, 4), _Block(16, 32, 2), _Block(32, 32, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.fine(self.stem(x))
        return OrderedDict([("0", fine), ("1", self.coarse(fine))])


class _Detect(nn.Module):
    """Takes both maps together and returns (N, 4 + classes, n) with what it took, as YOLO's heads do."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(32, 4 + CLASSES, 1) for _ in range(2))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        found = []
        for conv, one, stride in zip(self.convs, maps, (8, 16), strict=True):
            y, side = conv(one), one.shape[-1]
            rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
            centres = (torch.stack([columns, rows]).to(y) + y[:, :2].sigmoid()) * stride
            found.append(torch.cat([centres, 2 * stride * y[:, 2:4].tanh().exp(), y[:, 4:].sigmoid()], 1).flatten(2))
        return torch.cat(found, 2), maps


class _YOLO(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.detect = Pyramid(), _Detect()

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.detect(list(self.backbone(x).values()))


def detector(kind: str, seed: int = 0) -> nn.Module:
    """A detector with random weights that finds several things in every image, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _MAKE[kind]()
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.2, 0.6)
            elif isinstance(part, nn.Conv2d | nn.Linear):
                # Heads are made so as to say nothing at first.
                nn.init.normal_(part.weight, std=(0.6 / part.weight[0].numel()) ** 0.5)
                if part.bias is not None:
                    part.bias.data.normal_(0, 0.3)
    return model.eval()


def _anchors() -> object:
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    return AnchorGenerator(sizes=((12,), (28,)), aspect_ratios=((0.7, 1.4),) * 2)


def _faster_rcnn() -> nn.Module:
    from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    return FasterRCNN(
        Pyramid(), rpn_anchor_generator=_anchors(), box_roi_pool=MultiScaleRoIAlign(["0", "1"], 3, 2),
        box_head=TwoMLPHead(32 * 9, 16), box_predictor=FastRCNNPredictor(16, CLASSES), min_size=SIDE, max_size=SIDE,
        rpn_post_nms_top_n_test=16, box_detections_per_img=8, box_score_thresh=0.0,
    )  # fmt: skip


def _one_stage(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from torchvision.models import detection
        from torchvision.models.detection.anchor_utils import AnchorGenerator

        anchors = _anchors() if name == "RetinaNet" else AnchorGenerator(((8,), (16,)), ((1.0,),) * 2)
        few = {"score_thresh": 0.0, "detections_per_img": 8, "topk_candidates": 20}
        sizes = {"min_size": SIDE, "max_size": SIDE}
        return getattr(detection, name)(Pyramid(), CLASSES, anchor_generator=anchors, **sizes, **few)

    return make


def _ssd() -> nn.Module:
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD, SSDHead

    boxes = DefaultBoxGenerator([[2], [2]], scales=[0.2, 0.4, 0.6])
    head = SSDHead([32, 32], boxes.num_anchors_per_location(), CLASSES)
    few = {"score_thresh": 0.0, "detections_per_img": 8, "topk_candidates": 20}
    return SSD(Pyramid(), boxes, (SIDE, SIDE), CLASSES, head=head, **few)


_MAKE: dict[str, Callable[[], nn.Module]] = {
    "faster_rcnn": _faster_rcnn,
    "retinanet": _one_stage("RetinaNet"),
    "fcos": _one_stage("FCOS"),
    "ssd": _ssd,
    "yolo": _YOLO,
}
