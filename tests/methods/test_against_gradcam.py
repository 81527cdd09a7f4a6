"""Against grad-cam and torchcam at ReLU'd layers of an awake ResNet-18: the same picture after scaling to [0, 1].

Both libraries scale every map, so only the picture can be compared. grad-cam scales on the layer's grid, resizes with
OpenCV (bilinear, pixel centres as `align_corners=False`) and scales again, which comes to the same as scaling once at
the end. torchcam scales on the layer's grid and does not resize. All run in float64: grad-cam's ablation weights are
small differences, which float32 leaves four digits.
"""

from __future__ import annotations

from functools import lru_cache

import networks
import pytest
import torch

import xai_fast as xf

# Residual blocks end in a ReLU. Where the least activation is not 0, grad-cam's ablation writes something else.
LAYERS = ["layer4", "layer3.0", "layer1.1"]


@lru_cache(maxsize=1)
def subject():
    """(model, two photos, their best classes); scores are positive, because grad-cam divides its weights by them."""
    model, inputs = networks.awakened("resnet18").double(), networks.photos(2, 64).double()
    with torch.no_grad():
        scores = model(inputs)
    assert scores.max(1).values.min() > 0
    return model, inputs, scores.argmax(1).tolist()


def scaled(maps):
    """Each map from 0 to 1."""
    maps = maps.double().flatten(1)
    low, high = maps.min(1, keepdim=True).values, maps.max(1, keepdim=True).values
    assert (high > low).all(), "a map that is flat says nothing"
    return (maps - low) / (high - low)


def assert_same_picture(actual, expected):
    assert actual.numel() == expected.numel()
    error = (scaled(actual) - scaled(expected)).abs().max().item()
    assert error <= 1e-4, f"the pictures differ by {error:.1e}"


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("method", ["GradCAM", "AblationCAM"])
def test_grad_cam_draws_the_same_picture(method, layer):
    library = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    targets_of = pytest.importorskip("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    model, inputs, targets = subject()
    ours = getattr(xf, method)(model, layer=layer).attribute(inputs, targets)
    twin = networks.awakened("resnet18").double()
    with getattr(library, method)(model=twin, target_layers=[twin.get_submodule(layer)]) as cam:
        theirs = cam(inputs.clone(), [targets_of(target) for target in targets])
    assert_same_picture(ours, torch.from_numpy(theirs))


@pytest.mark.parametrize("layer", LAYERS)
def test_torchcam_draws_the_same_picture(layer):
    library = pytest.importorskip("torchcam.methods", reason="torchcam is not installed")
    model, inputs, targets = subject()
    ours = xf.GradCAM(model, layer=layer).attribute(inputs, targets, resolution="native")
    twin = networks.awakened("resnet18").double()
    with library.GradCAM(twin, layer) as cam:
        scores = twin(inputs.clone())
        (theirs,) = cam(class_idx=targets, scores=scores)
    assert_same_picture(ours, theirs)


def test_another_class_draws_another_picture():
    """So that the comparisons compare something."""
    model, inputs, targets = subject()
    one, other = (xf.GradCAM(model, layer="layer4").attribute(inputs, t) for t in (targets, [t + 1 for t in targets]))
    assert (scaled(one) - scaled(other)).abs().max() > 0.1
