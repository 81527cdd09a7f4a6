"""Captum accelerated on awakened networks: every class it is served for, no further from float64 than captum."""

from __future__ import annotations

import copy
from functools import lru_cache

import pytest
import torch
from goldens import apart, both, same_form, seeded, tensors
from networks import awaken, awakened, photos
from torch import nn

import xai_fast as xf

attr = pytest.importorskip("captum.attr", reason="captum is not installed")

from xai_fast.compat import models  # noqa: E402 - after the check that captum is there

NETWORKS = ("resnet18", "vit", "grey")
CLASSES = 12


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(models, "ENOUGH", 0)


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


@lru_cache(maxsize=1)
def subject(name):
    """(network, its last layer of positions, a photograph)."""
    if name == "grey":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = awaken(Grey(), photos(12, 48).mean(1, keepdim=True))
        return model, model.body[3], photos(1, 48).mean(1, keepdim=True)
    if name == "vit":
        options = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 24, "mlp_dim": 48}
        from torchvision.models import VisionTransformer

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = awaken(VisionTransformer(**options, num_classes=CLASSES), photos(12, 32))
        return model, model.conv_proj, photos(1, 32)
    model = awakened(name)
    return model, model.layer3[1].conv2, photos(1, 48)


def cells(image):
    """Labels of 3 x 3 cells, (1, 1, H, W)."""
    side = image.shape[-1]
    steps = torch.arange(side) * 3 // side
    return (steps[:, None] * 3 + steps)[None, None]


def window(image):
    return (image.shape[1], image.shape[2] // 2, image.shape[3] // 2)


def made(kind):
    return lambda model, layer, x, target, **keywords: getattr(attr, kind)(model).attribute(
        x, target=target, **keywords
    )


def at_layer(kind, **keywords):
    return lambda model, layer, x, target: getattr(attr, kind)(model, layer).attribute(x, target=target, **keywords)


CALLS = {
    "Saliency": made("Saliency"),
    "InputXGradient": made("InputXGradient"),
    "IntegratedGradients": lambda m, _, x, t: attr.IntegratedGradients(m).attribute(x, target=t, n_steps=5),
    "GradientShap": lambda m, _, x, t: attr.GradientShap(m).attribute(
        x, torch.cat([x.flip(3), x.flip(2)]), n_samples=3, stdevs=0.05, target=t
    ),
    "NoiseTunnel": lambda m, _, x, t: attr.NoiseTunnel(attr.Saliency(m)).attribute(
        x, nt_samples=3, stdevs=0.1, target=t
    ),
    "Occlusion": lambda m, _, x, t: attr.Occlusion(m).attribute(x, window(x), window(x), target=t),
    "FeatureAblation": lambda m, _, x, t: attr.FeatureAblation(m).attribute(x, target=t, feature_mask=cells(x)),
    "ShapleyValueSampling": lambda m, _, x, t: attr.ShapleyValueSampling(m).attribute(
        x, target=t, feature_mask=cells(x), n_samples=1
    ),
    "ShapleyValues": lambda m, _, x, t: attr.ShapleyValues(m).attribute(x, target=t, feature_mask=cells(x) // 3),
    "Lime": lambda m, _, x, t: attr.Lime(m).attribute(x, target=t, feature_mask=cells(x), n_samples=14),
    "KernelShap": lambda m, _, x, t: attr.KernelShap(m).attribute(x, target=t, feature_mask=cells(x), n_samples=14),
    "GuidedBackprop": made("GuidedBackprop"),
    "Deconvolution": made("Deconvolution"),
    "GuidedGradCam": at_layer("GuidedGradCam"),
    "LayerGradCam": at_layer("LayerGradCam"),
    "LayerActivation": lambda m, layer, x, _: attr.LayerActivation(m, layer).attribute(x),
    "LayerIntegratedGradients": at_layer("LayerIntegratedGradients", n_steps=4),
    "DeepLift": made("DeepLift"),
    "DeepLiftShap": lambda m, _, x, t: attr.DeepLiftShap(m).attribute(x, torch.cat([x.flip(3), x.flip(2)]), target=t),
}

RESCALED = ("DeepLift", "DeepLiftShap")
# Captum's DeepLIFT refuses modules that run twice, and of a transformer it sees neither softmax nor GELU.
REFUSED = ("resnet18",)
UNSEEN = ("vit",)


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("network", NETWORKS)
def test_captums_numbers(network, method):
    model, layer, image = subject(network)
    target = int(model(image).argmax())

    def run():
        return CALLS[method](model, layer, image, target)

    if method in RESCALED and network in REFUSED:
        with pytest.raises(RuntimeError) as plain:
            run()
        with pytest.raises(RuntimeError) as ours, xf.accelerate("captum"):
            run()
        assert str(ours.value) == str(plain.value)
        return
    plain, ours, report, as_many = both(run)
    same_form(plain, ours)
    assert as_many, "as many draws as captum's"
    precise = Precise(model)
    place = {id(part): other for part, other in zip(model.modules(), precise.inner.modules(), strict=True)}
    truth, _ = seeded(lambda: CALLS[method](precise, place[id(layer)], image, target))
    (plain,), (ours,), (truth,) = tensors(plain), tensors(ours), tensors(truth)
    assert truth.abs().max() > 1e-7, "the network sleeps"
    assert apart(ours, truth)[1] <= max(2 * apart(plain, truth)[1], 2e-6), (apart(ours, truth), apart(plain, truth))
    served = not (method in RESCALED and network in UNSEEN)
    assert (report.accelerated, report.passed_on) == (int(served), int(not served)), str(report)
