"""Awakened networks for the libraries' classes: layers to look at and a photograph of each, and twins in float64."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import NamedTuple

import torch
from networks import awaken, awakened, photos
from torch import Tensor, nn

CLASSES = 12


class Precise(nn.Module):
    """A network that computes in float64, and draws nothing else for it."""

    def __init__(self, model):
        super().__init__()
        self.inner = copy.deepcopy(model).double()
        self.eval()

    def forward(self, x):
        return self.inner(x.double())


class Grey(nn.Module):
    """A small network for images of one channel."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        )
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Subject(NamedTuple):
    """A network, and what of it is looked at.

    Attributes:
        model: in eval mode.
        deep: its last layer of positions.
        narrow: one of few channels, for methods that run the model once per channel.
        image: a photograph.
        others: further ones.
    """

    model: nn.Module
    deep: nn.Module
    narrow: nn.Module
    image: Tensor
    others: tuple[Tensor, ...]

    @property
    def target(self) -> int:
        """The predicted class."""
        with torch.no_grad():
            return int(self.model(self.image).argmax())

    def at(self, number: int) -> Subject:
        """With another photograph in the image's place; 0 is the first."""
        return self if not number else self._replace(image=self.others[number - 1])


LAYERS = {
    "resnet18": ("layer3.1.conv2", "layer1"),
    "vgg11": ("features.20", "features.2"),
    "densenet121": ("features.denseblock2", "features.pool0"),
    "mobilenet_v2": ("features.18", "features.3"),
}
SIDE = {"resnet18": 48, "vgg11": 64, "densenet121": 32, "mobilenet_v2": 64}
PHOTOS = 5


@lru_cache(maxsize=1)
def subject(name: str) -> Subject:
    """One of `LAYERS`, "vit" or "grey"."""
    if name == "grey":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = awaken(Grey(), photos(12, 48).mean(1, keepdim=True))
        images = photos(PHOTOS, 48).mean(1, keepdim=True)
        return _subject(model, model.body[3], model.body[0], images)
    if name == "vit":
        options = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 24, "mlp_dim": 48}
        from torchvision.models import VisionTransformer

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = awaken(VisionTransformer(**options, num_classes=CLASSES), photos(12, 32))
        return _subject(model, model.conv_proj, model.conv_proj, photos(PHOTOS, 32))
    model = awakened(name)
    deep, narrow = (model.get_submodule(layer) for layer in LAYERS[name])
    return _subject(model, deep, narrow, photos(PHOTOS, SIDE[name]))


def _subject(model: nn.Module, deep: nn.Module, narrow: nn.Module, images: Tensor) -> Subject:
    first, *others = images.split(1)
    return Subject(model, deep, narrow, first, tuple(others))


@lru_cache(maxsize=1)
def precise(name: str) -> Subject:
    """The same in float64."""
    own = subject(name)
    twin = Precise(own.model)
    place = {id(part): other for part, other in zip(own.model.modules(), twin.inner.modules(), strict=True)}
    return Subject(twin, place[id(own.deep)], place[id(own.narrow)], own.image, own.others)


def cells(image: Tensor, side: int = 3) -> Tensor:
    """Labels of side x side cells, (1, 1, H, W)."""
    extent = image.shape[-1]
    steps = torch.arange(extent) * side // extent
    return (steps[:, None] * side + steps)[None, None]
