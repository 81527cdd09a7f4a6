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


# Our name, grad-cam's, our settings, and whether grad-cam leaves the sign to LAPACK.
SAME = [
    ("GradCAM", "GradCAM", {}, False),
    ("AblationCAM", "AblationCAM", {}, False),
    ("GradCAMPlusPlus", "GradCAMPlusPlus", {}, False),
    ("XGradCAM", "XGradCAM", {}, False),
    ("HiResCAM", "HiResCAM", {}, False),
    ("LayerCAM", "LayerCAM", {}, False),
    ("GradCAMElementWise", "GradCAMElementWise", {}, False),
    ("ShapleyCAM", "ShapleyCAM", {}, False),
    ("EigenCAM", "EigenCAM", {"centred": True}, True),
    ("EigenGradCAM", "EigenGradCAM", {}, True),
    ("SegEigenCAM", "SegEigenCAM", {}, False),
]


# grad-cam decomposes matrices of all channels by all channels: a shallow layer has few.
CASES = [(layer, *row) for row in SAME for layer in (LAYERS if "Eigen" not in row[0] else LAYERS[-1:])]


@pytest.mark.parametrize(
    ("layer", "method", "name", "settings", "either"), CASES, ids=[f"{case[1]}-{case[0]}" for case in CASES]
)
def test_grad_cam_draws_the_same_picture(layer, method, name, settings, either):
    library = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    model, inputs, targets = subject()
    # So large that the numbers that grad-cam adds to denominators vanish beside them.
    scale = 1e6 if method in ("GradCAMPlusPlus", "XGradCAM") else 1.0

    def score(output, sample):
        return scale * output.gather(1, torch.tensor(targets)[sample.cpu()][:, None])[:, 0]

    given = targets if scale == 1 else score
    ours = getattr(xf, method)(model, layer=layer, **settings).attribute(inputs, given)
    twin = networks.awakened("resnet18").double()
    with getattr(library, name)(model=twin, target_layers=[twin.get_submodule(layer)]) as cam:
        theirs = torch.from_numpy(cam(inputs.clone(), [lambda out, t=t: scale * out[t] for t in targets]))
    if not either:
        assert_same_picture(ours, theirs)
        return
    assert_same_picture_of_either_sign(getattr(xf, method)(model, layer=layer, signed=True, **settings), given, theirs)


def assert_same_picture_of_either_sign(method, target, theirs):
    """Rectified on the layer's grid, then resized, as both do it; grad-cam's sign is what LAPACK returns."""
    _, inputs, _ = subject()
    signed = method.attribute(inputs, target, resolution="native")
    for one, their in zip(signed, theirs, strict=True):
        ways = [torch.nn.functional.interpolate(way[None].relu(), (64, 64), mode="bilinear") for way in (one, -one)]
        assert min(_picture_error(way[0], their) for way in ways) <= 1e-4


def _picture_error(actual, expected):
    return (scaled(actual[None]) - scaled(expected[None])).abs().max().item()


def test_grad_cam_draws_the_same_full_gradient():
    library = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    model, inputs, targets = subject()
    ours = xf.FullGrad(model).attribute(inputs, targets)
    twin = networks.awakened("resnet18").double()
    with library.FullGrad(model=twin, target_layers=[]) as cam:
        theirs = cam(inputs.clone(), [lambda out, t=t: out[t] for t in targets])
    assert_same_picture(ours, torch.from_numpy(theirs))


def test_grad_cam_draws_the_same_kernel_component():
    library = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    model, inputs, targets = subject()
    twin = networks.awakened("resnet18").double()
    with library.KPCA_CAM(model=twin, target_layers=[twin.layer3[0]], kernel="rbf") as cam:
        theirs = torch.from_numpy(cam(inputs.clone(), None))
    method = xf.KPCACAM(model, layer="layer3.0", kernel="rbf", signed=True)
    assert_same_picture_of_either_sign(method, targets, theirs)


# Our name, torchcam's, our settings and theirs.
THEIRS = [
    ("GradCAM", "GradCAM", {}, {}),
    ("XGradCAM", "XGradCAM", {}, {}),
    ("LayerCAM", "LayerCAM", {}, {}),
    ("FinerCAM", "FinerCAM", {"gamma": 0.8, "n_references": 2}, {"gamma": 0.8, "num_references": 2}),
]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("method", "name", "settings", "given"), THEIRS, ids=[row[0] for row in THEIRS])
def test_torchcam_draws_the_same_picture(method, name, settings, given, layer):
    library = pytest.importorskip("torchcam.methods", reason="torchcam is not installed")
    model, inputs, targets = subject()
    ours = getattr(xf, method)(model, layer=layer, **settings).attribute(inputs, targets, resolution="native")
    twin = networks.awakened("resnet18").double()
    with getattr(library, name)(twin, layer, **given) as cam:
        scores = twin(inputs.clone())
        (theirs,) = cam(class_idx=targets, scores=scores)
    assert_same_picture(ours, theirs)


def test_torchcam_draws_the_same_classic_map():
    library = pytest.importorskip("torchcam.methods", reason="torchcam is not installed")
    model, inputs, targets = subject()
    ours = xf.CAM(model, layer="layer4").attribute(inputs, targets, resolution="native")
    twin = networks.awakened("resnet18").double()
    with library.CAM(twin, "layer4", "fc") as cam:
        twin(inputs.clone())
        (theirs,) = cam(class_idx=targets)
    assert_same_picture(ours, theirs)


def test_torchcam_scores_the_same_channels():
    library = pytest.importorskip("torchcam.methods", reason="torchcam is not installed")
    model, inputs, targets = subject()
    ours = xf.ScoreCAM(model, layer="layer1.1").attribute(inputs, targets, resolution="native")
    twin = networks.awakened("resnet18").double()
    with library.ScoreCAM(twin, "layer1.1") as cam, torch.no_grad():
        twin(inputs.clone())
        (theirs,) = cam(class_idx=targets)
    assert_same_picture(ours, theirs)


def test_torchcam_refines_to_the_same_picture():
    """By LayerCAM: torchcam's Grad-CAM++ does not divide."""
    library = pytest.importorskip("torchcam.methods", reason="torchcam is not installed")
    model, inputs, targets = subject()
    layers = ["layer2", "layer4"]
    ours = xf.RefineCAM(model, layer=layers, formula="LayerCAM").attribute(inputs, targets, resolution="native")
    twin = networks.awakened("resnet18").double()
    with library.RefineCAM(twin, layers, base_method=library.LayerCAM) as cam:
        scores = twin(inputs.clone())
        (theirs,) = cam(class_idx=targets, scores=scores)
    assert_same_picture(ours, theirs)


def test_another_class_draws_another_picture():
    """So that the comparisons compare something."""
    model, inputs, targets = subject()
    one, other = (xf.GradCAM(model, layer="layer4").attribute(inputs, t) for t in (targets, [t + 1 for t in targets]))
    assert (scaled(one) - scaled(other)).abs().max() > 0.1
