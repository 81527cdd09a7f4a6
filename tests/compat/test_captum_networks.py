"""Captum accelerated on awakened networks: every class it is served for, no further from float64 than captum."""

from __future__ import annotations

import pytest
import torch
from awake import PHOTOS, cells, precise, subject
from goldens import apart, both, by_chance, moved, no_further, no_further_together, same_form, seeded, tensors

import xai_fast as xf

attr = pytest.importorskip("captum.attr", reason="captum is not installed")


NETWORKS = ("resnet18", "vgg11", "densenet121", "mobilenet_v2", "vit", "grey")


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
# Captum's DeepLIFT refuses modules that run twice; it sees no softmax, no GELU, no ReLU6, no functional ReLU, and its
# hooks disturb each other where one module writes over what the next one reads, as VGG's do.
REFUSED = ("resnet18",)
UNSEEN = ("vit", "vgg11", "densenet121", "mobilenet_v2")


# Nor do its rules for ReLUs see functional ones, of which DenseNet has one.
RECTIFIED = ("GuidedBackprop", "Deconvolution", "GuidedGradCam")
UNRECTIFIED = ("densenet121",)


DEEP = ("vgg11", "densenet121", "mobilenet_v2")
# Of the large ones, which take seconds to be prepared for each layer, a few methods; all of them in .ci/full.
LARGE = ("vgg11", "densenet121")
OFTEN = ("IntegratedGradients", "NoiseTunnel", "Occlusion", "KernelShap", "GuidedBackprop")
CASES = [
    pytest.param(network, method, marks=[pytest.mark.slow] if network in LARGE and method not in OFTEN else [])
    for network in NETWORKS
    for method in CALLS
    if not (method in RESCALED and network in REFUSED)
]
# What derives from gradients through ReLUs, of which kinks decide.
KINKED = (
    *("Saliency", "InputXGradient", "IntegratedGradients", "GradientShap", "NoiseTunnel"),
    *("GuidedBackprop", "Deconvolution", "GuidedGradCam", "LayerGradCam", "LayerIntegratedGradients"),
    *RESCALED,
)


@pytest.mark.parametrize("method", RESCALED)
@pytest.mark.parametrize("network", REFUSED)
def test_captums_refusals(network, method):
    on = subject(network)
    image = on.image.clone()  # of which captum asks for gradients, and then fails
    with pytest.raises(RuntimeError) as plain:
        CALLS[method](on.model, on.deep, image, on.target)
    with pytest.raises(RuntimeError) as ours, xf.accelerate("captum"):
        CALLS[method](on.model, on.deep, image, on.target)
    assert str(ours.value) == str(plain.value)


@pytest.mark.parametrize(("network", "method"), CASES)
def test_captums_numbers(network, method):
    on, twin = subject(network), precise(network)

    def run(on=on):
        return CALLS[method](on.model, on.deep, on.image, target)

    served = network not in (UNSEEN if method in RESCALED else UNRECTIFIED if method in RECTIFIED else ())
    awake, errors, theirs = False, [], []
    for number in range(PHOTOS if network in DEEP and method in KINKED else 1):
        at, target = on.at(number), on.at(number).target
        plain, ours, report, as_many = both(lambda at=at: run(at))
        same_form(plain, ours)
        assert as_many, "as many draws as captum's"
        assert (report.accelerated, report.passed_on) == (int(served), int(not served)), str(report)
        truth, _ = seeded(lambda number=number: run(twin.at(number)))
        (plain,), (ours,), (truth,) = tensors(plain), tensors(ours), tensors(truth)
        if not truth.any():  # a map may be rectified to nothing, and then is nothing
            assert not ours.any()
            continue
        assert truth.abs().max() > 1e-7, "the network sleeps"
        awake = True

        def again(move, at=at):
            return tensors(seeded(lambda: run(at._replace(image=moved(at.image, move))))[0])[0]

        def on_moved(move, at=at, number=number):
            image = moved(at.image, move)
            one, other, *_ = both(lambda: run(at._replace(image=image)))
            precisely, _ = seeded(lambda: run(twin.at(number)._replace(image=image.double())))
            return *tensors(other), *tensors(one), *tensors(precisely)

        if reason := no_further(ours, plain, truth, again):
            assert method in KINKED and by_chance(on_moved), (reason, number)  # noqa: PT018 - one judgement
        errors.append(apart(ours, truth)[1])
        theirs.append(apart(plain, truth)[1])
    assert awake, "the network sleeps"
    if network in DEEP:
        assert not (reason := no_further_together(errors, theirs)), (reason, errors, theirs)
