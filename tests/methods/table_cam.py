"""The CAM family's part of the table: replicas, the settings to test them under, and closed forms."""

from __future__ import annotations

import replicas_cam
import torch
from method_case import cases, pooled_head
from replicas_masks import uniform
from torch import nn

# For inputs (N, 3, 13, 11) of `subjects.Small`. The first row of a method stands for it where one is enough.
CAM_CASES = [
    *cases("CAM", replicas_cam.cam, {"layer": "cells"}, {"layer": "cells", "resolution": "native", "signed": False}),
    *cases(
        "GradCAMPlusPlus",
        replicas_cam.gradcam_plus_plus,
        {"layer": "pool"},  # where activations are negative the denominator may be 0
        {"layer": ["body", "pool"], "fuse": "mean", "aug_smooth": True, "resolution": "native"},
        {"layer": "body_norm", "eigen_smooth": True},
    ),
    *cases(
        "SmoothGradCAMPlusPlus",
        replicas_cam.smooth_gradcam_plus_plus,
        {"layer": "pool", "n_samples": 3},
        {"layer": ["body", "pool"], "n_samples": 2, "noise": 0.4, "relative": False, "seed": 5, "aug_smooth": True},
    ),
    *cases("XGradCAM", replicas_cam.xgradcam, {"layer": "pool"}, {"layer": "pool", "signed": True}),
    *cases(
        "HiResCAM",
        replicas_cam.hirescam,
        {"layer": "body_norm"},
        {"layer": ["body", "stem"], "signed": True, "eigen_smooth": True},
    ),
    *cases("LayerCAM", replicas_cam.layer_cam, {"layer": "pool"}, {"layer": ["stem", "body"], "eigen_smooth": True}),
    *cases("GradCAMElementWise", replicas_cam.element_wise, {"layer": "body_norm"}, {"layer": "stem"}),
    *cases("ShapleyCAM", replicas_cam.shapley, {"layer": "body_norm"}, {"layer": ["stem", "body"], "fuse": "mean"}),
    *cases(
        "FinerCAM",
        replicas_cam.finer_cam,
        {"layer": "body_norm"},
        {"layer": "pool", "formula": "LayerCAM", "gamma": 1.0, "n_references": 9, "aug_smooth": True},
    ),
    *cases(
        "RefineCAM",
        replicas_cam.refine_cam,
        {"layer": ["stem", "pool"]},
        {"layer": ["pool", "body_norm", "stem"], "formula": "LayerCAM", "resolution": "native"},
    ),
    *cases(
        "RandomCAM",
        replicas_cam.random_cam,
        {"layer": "pool", "seed": 2},
        {"layer": ["stem", "pool"], "signed": True, "resolution": "native"},
    ),
    *cases(
        "ScoreCAM",
        replicas_cam.score_cam,
        {"layer": "pool"},
        {"layer": ["body", "pool"], "fuse": "mean", "aug_smooth": True, "resolution": "native", "signed": True},
    ),
    *cases(
        "SSCAM",
        replicas_cam.sscam,
        {"layer": "pool", "n_samples": 3},
        {"layer": ["pool", "stem"], "n_samples": 2, "noise": 0.5, "seed": 7},
    ),
    *cases("ISCAM", replicas_cam.iscam, {"layer": "pool", "n_samples": 3}),
    *cases("FullGrad", replicas_cam.full_grad, {}, {"aug_smooth": True}),
    *cases(
        "EigenCAM",
        replicas_cam.eigen_cam,
        {"layer": "pool"},
        {"layer": "stem", "centred": True, "signed": True},
        {"layer": ["pool", "stem_norm"], "aug_smooth": True},
    ),
    *cases("EigenGradCAM", replicas_cam.eigen_gradcam, {"layer": "pool"}, {"layer": "stem"}),
    *cases("SegEigenCAM", replicas_cam.seg_eigen_cam, {"layer": "pool"}, {"layer": "stem", "signed": True}),
    *cases(
        "KPCACAM",
        replicas_cam.kpca_cam,
        {"layer": "pool"},
        {"layer": "pool", "kernel": "rbf", "gamma": 0.5, "signed": True},
        {"layer": "body_norm", "kernel": "poly"},
        {"layer": "body_norm", "kernel": "cosine"},
    ),
    *cases("ClassAttention", replicas_cam.class_attention, {"layer": "pool"}),
    *cases("PositionAttention", replicas_cam.position_attention, {"layer": "pool"}, {"layer": ["body", "stem"]}),
]


def _head(inputs, channels=5):
    """The network that CAM was drawn for, its features (N, C, *s), and its weights over the number of positions."""
    model = pooled_head(inputs.shape[1:], channels=channels)
    return model, model[0](inputs).detach(), model[3].weight.detach() / inputs[0, 0].numel()


def _mapped(weights, features):
    """Σ_k w_k A_k as (N, 1, *s) from weights (N, C), or (C,)."""
    return (weights.expand(len(features), -1)[:, :, None, None] * features).sum(1, keepdim=True)


def _classic(inputs, target):
    model, features, weights = _head(inputs)
    return model, {"layer": "0"}, _mapped(weights[target], features)


def _rectified(**settings):
    """Where the gradient is the same at every position, averaging it changes nothing."""

    def made(inputs, target):
        model, given, expected = _classic(inputs, target)
        return model, {**given, **settings}, expected.clamp_min(0)

    return made


def _plus_plus(**settings):
    """α is the same at every position: 1 / (2 + g ΣA)."""

    def made(inputs, target):
        model, features, weights = _head(inputs)
        slope = weights[target]
        own = inputs[0, 0].numel() * slope.clamp_min(0) / (2 + slope * features.sum((2, 3)))
        return model, {"layer": "0", **settings}, _mapped(own, features).clamp_min(0)

    return made


def _layer_cam(inputs, target):
    model, features, weights = _head(inputs)
    return model, {"layer": "0"}, _mapped(weights[target].clamp_min(0), features).clamp_min(0)


def _element_wise(inputs, target):
    model, features, weights = _head(inputs)
    products = (weights[target][:, None, None] * features).clamp_min(0)
    return model, {"layer": "0"}, products.sum(1, keepdim=True)


def _finer(inputs, target):
    """All other classes are references: the class's weights less the mean of the others'."""
    model, features, weights = _head(inputs)
    others = (weights.sum(0) - weights[target]) / (len(weights) - 1)
    settings = {"layer": "0", "gamma": 0.5, "n_references": 7}
    return model, settings, _mapped(weights[target] - 0.5 * others, features).clamp_min(0)


def _refine(inputs, target):
    """Twice the same layer: the square of the map from 0 to 1."""
    model, _, expected = _rectified()(inputs, target)
    model.insert(1, nn.Identity())
    flat = expected.flatten(2)
    low, high = flat.amin(2)[..., None, None], flat.amax(2)[..., None, None]
    return model, {"layer": ["0", "1"], "formula": "GradCAM"}, ((expected - low) / (high - low)) ** 2


def _random(inputs, _target):
    model, features, _ = _head(inputs)
    weights = torch.tensor([2 * uniform(4, 0, 0, k) - 1 for k in range(5)])
    return model, {"layer": "0", "seed": 4}, _mapped(weights, features).clamp_min(0)


def _full_grad(inputs, _target):
    """Every bias has the same share everywhere, which is scaled away; so is how much a channel of the input matters."""
    model, _, _ = _head(inputs)
    flat = inputs.abs().flatten(2)
    low, high = flat.amin(2)[..., None, None], flat.amax(2)[..., None, None]
    return model, {}, ((inputs.abs() - low) / (high - low)).sum(1, keepdim=True)


def _one_channel(centred, weighted, **settings):
    """The principal direction of one channel is that channel."""

    def made(inputs, target):
        model, features, weights = _head(inputs, channels=1)
        found = features * (weights[target][0] if weighted == "slope" else weights[target][0].abs() if weighted else 1)
        found = found - found.mean((2, 3), keepdim=True) if centred else found
        if weighted == "strength":
            flat = found.flatten(2)
            down = (flat.amin(2).abs() > flat.amax(2).abs())[..., None, None]
            found = torch.where(down, -found, found)
        return model, {"layer": "0", **settings}, found.clamp_min(0)

    return made


def _class_attention(inputs, _target):
    model, features, weights = _head(inputs)
    shares = model(inputs).detach().softmax(1)
    return model, {"layer": "0"}, _mapped(shares @ weights, features).clamp_min(0)


def _position_attention(inputs, _target):
    model, features, _ = _head(inputs)
    return model, {"layer": "0"}, features.square().sum(1, keepdim=True)


def _scored(of_mask, **settings):
    """The score of an input seen through a mask is linear in the mask."""

    def made(inputs, target):
        model, features, weights = _head(inputs)
        flat = features.flatten(2)
        low, high = flat.amin(2)[..., None, None], flat.amax(2)[..., None, None]
        masks = (features - low) / (high - low)
        bias = torch.nn.functional.conv2d(inputs * 0, model[0].weight, model[0].bias).detach()
        slope = torch.nn.functional.conv2d(inputs, model[0].weight).detach()  # of a mask of ones, less the bias
        sums = (weights[target][:, None, None] * slope).sum(1)[:, None] * masks
        constant = (weights[target][:, None, None] * bias).sum((1, 2, 3))
        scores = of_mask * sums.sum((2, 3)) + constant[:, None]
        return model, {"layer": "0", **settings}, _mapped(scores.softmax(1), features).clamp_min(0)

    return made


CAM_CLOSED_FORMS = {
    "CAM": _classic,
    "GradCAMPlusPlus": _plus_plus(),
    "SmoothGradCAMPlusPlus": _plus_plus(n_samples=3),
    "XGradCAM": _rectified(),
    "HiResCAM": _rectified(),
    "LayerCAM": _layer_cam,
    "GradCAMElementWise": _element_wise,
    "ShapleyCAM": _rectified(),
    "FinerCAM": _finer,
    "RefineCAM": _refine,
    "RandomCAM": _random,
    "ScoreCAM": _scored(1),
    "SSCAM": _scored(1, n_samples=1, noise=0.0),
    "ISCAM": _scored((1 / 3 + 2 / 3 + 1) / 3, n_samples=3),
    "FullGrad": _full_grad,
    "EigenCAM": _one_channel(False, ""),
    "EigenGradCAM": _one_channel(True, "slope"),
    "SegEigenCAM": _one_channel(True, "strength"),
    "KPCACAM": _one_channel(True, "", kernel="linear"),
    "ClassAttention": _class_attention,
    "PositionAttention": _position_attention,
}
