"""One place per method for the contract tests: its replica, the settings to test it under, and its closed form."""

from __future__ import annotations

import math

import replicas
import replicas_coalitions
import replicas_masks
import replicas_partition
import torch
from method_case import Linear, cases, pooled_head
from table_attention import ATTENTION_CASES, ATTENTION_CLOSED_FORMS
from table_cam import CAM_CASES, CAM_CLOSED_FORMS
from table_gradient import GRADIENT_CASES, GRADIENT_CLOSED_FORMS
from torch import nn

# Of 13 x 11 positions: stripes with gaps in their numbers and none in a corner; runs of thirty; masks that overlap.
GAPS = (torch.arange(13)[:, None] + torch.arange(11)) // 4 * 7 + 3
GAPS[:3, :4] = -2
RUNS = torch.arange(143).view(13, 11) // 30
TENTHS = torch.arange(143).view(13, 11) // 15
OVERLAPPING = torch.stack([GAPS == 10, RUNS == 1, RUNS < 3, GAPS > 20])


class Parts:
    """A function from a picture to as many segments, one after the other, whatever its axes."""

    def __init__(self, count):
        self.count = count

    def __call__(self, picture):
        space = picture.shape[:-1]
        return torch.arange(math.prod(space)).view(space) * self.count // math.prod(space)

    def __repr__(self):
        return f"Parts({self.count})"


# For inputs (N, 3, 13, 11) of `subjects.Small`. The first row of a method stands for it where one is enough.
CASES = [
    *cases(
        "Occlusion",
        replicas.occlusion,
        {"window": 4, "stride": 3},
        {"window": 5},
        {"window": (4, 3), "stride": (2, 5), "baseline": 0.7},
        {"window": (2, 5, 4), "stride": (1, 3, 3)},
        {"window": (2, 6, 6), "baseline": (0.5, -1.0, 2.0)},
        {"window": 2, "stride": 5},
        {"window": 2, "stride": 40},
        {"window": (13, 11), "stride": 1, "baseline": "image_mean"},
        {"window": (1, 13, 11)},
    ),
    *cases(
        "FeatureAblation",
        replicas.feature_ablation,
        {"segments": "grid"},
        {"segments": GAPS},
        {"segments": RUNS, "baseline": "segment_mean"},
        {"segments": RUNS, "baseline": (0.5, -1.0, 2.0)},
        {"segments": OVERLAPPING, "baseline": 0.7},
        {"segments": GAPS < 0},
    ),
    *cases(
        "ShapleySampling",
        replicas_coalitions.shapley_sampling,
        {"segments": Parts(9), "n_permutations": 3},
        {"segments": "grid", "n_permutations": 1},
        {"segments": GAPS, "n_permutations": 7, "baseline": 0.7},
        {"segments": RUNS, "n_permutations": 4, "baseline": "segment_mean", "sampler": "antithetic", "seed": 5},
    ),
    *cases(
        "KernelShap",
        replicas_coalitions.kernel_shap,
        {"segments": Parts(9), "n_samples": 100},
        {"segments": GAPS, "baseline": "image_mean"},
        {"segments": TENTHS, "n_samples": 100, "sampler": "leverage", "baseline": 0.7},
        {"segments": TENTHS, "n_samples": 60, "sampler": "kernel", "seed": 3},
    ),
    *cases(
        "Lime",
        replicas_coalitions.lime,
        {"segments": "grid", "n_samples": 30, "baseline": 0.0},
        {"segments": GAPS, "n_samples": 40, "baseline": 0.7, "kernel_width": 0.5, "alpha": 0.1},
        {"segments": RUNS, "n_samples": 25, "sampler": "glime", "seed": 2},
        {"segments": GAPS, "n_samples": 30},
    ),
    *cases(
        "PartitionShap",
        replicas_partition.partition_shap,
        {"n_evaluations": 40, "baseline": 0.7},
        {"n_evaluations": 25},
        {"n_evaluations": 70, "baseline": "image_mean", "seed": 5},
        {"n_evaluations": 2, "baseline": (0.5, -1.0, 2.0)},
    ),
    *cases(
        "RISE",
        replicas_masks.rise,
        {"n_masks": 12, "cells": 4},
        {"n_masks": 10, "centred": True, "baseline": (0.5, -1.0, 2.0)},
        {"n_masks": 45, "cells": 3, "sampler": "stratified", "keep": 0.3, "seed": 7},
        {"n_masks": 50, "cells": 2, "sampler": "stratified", "centred": True},
        {"n_masks": 9, "cells": 5, "sampler": "antithetic", "centred": True, "seed": 2**63},
        {"n_masks": 8, "cells": 12, "sampler": "antithetic", "baseline": 0.7},
        {"n_masks": 6, "cells": 1, "baseline": "image_mean"},
    ),
    *cases(
        "DRISE",
        replicas_masks.drise,
        {"n_masks": 11},
        {"n_masks": 7, "cells": 5, "keep": 0.9, "centred": True, "seed": 3},
    ),
    *cases(
        "Saliency",
        replicas.saliency,
        {},
        {"absolute": False},
        {"channels": "max"},
        {"channels": "mean", "absolute": False},
        {"channels": "sum"},
        {"layer": "body"},
    ),
    *cases("InputXGradient", replicas.input_x_gradient, {}, {"layer": "stem_norm"}),
    *cases(
        "GradCAM",
        replicas.gradcam,
        {"layer": "body_norm"},
        {"layer": "body_norm", "resolution": "native"},
        {"layer": "stem"},
        {"layer": ["pool", "stem_norm", "body"]},
        {"layer": ["body", "stem"], "fuse": "mean"},
        {"layer": ["body", "stem"], "fuse": "mean", "resolution": "native"},
        {"layer": "body", "aug_smooth": True},
        {"layer": "body", "eigen_smooth": True},
        {"layer": ["body", "stem"], "aug_smooth": True, "eigen_smooth": True, "resolution": "native"},
        {"layer": ["body", "stem"], "signed": True},
    ),
    *cases(
        "AblationCAM",
        replicas.ablation_cam,
        {"layer": "body_norm"},
        {"layer": "body_norm", "resolution": "native"},
        {"layer": "stem"},
        {"layer": ["pool", "stem_norm", "body"]},
        {"layer": ["body", "stem"], "fuse": "mean"},
        {"layer": ["body", "stem"], "fuse": "mean", "resolution": "native"},
        {"layer": "body", "aug_smooth": True},
        {"layer": "body", "eigen_smooth": True},
        {"layer": ["body", "stem"], "aug_smooth": True, "eigen_smooth": True, "resolution": "native"},
    ),
    *cases(
        "ReciproCAM",
        replicas.recipro_cam,
        {"layer": "body_norm"},
        {"layer": "body_norm", "gaussian": False},
        {"layer": "pool", "resolution": "native"},
        {"layer": "stem"},
        {"layer": ["body", "pool"]},
        {"layer": ["body", "cells"], "fuse": "mean", "gaussian": False},
        {"layer": "body", "aug_smooth": True},
        {"layer": ["cells", "pool"], "fuse": "mean", "aug_smooth": True, "gaussian": False, "resolution": "native"},
    ),
    *CAM_CASES,
    *GRADIENT_CASES,
    *ATTENTION_CASES,
]
FIRST = [next(case for case in CASES if case.method == name) for name in dict.fromkeys(c.method for c in CASES)]
# Formulas of one pass: what a model does to it GradCAM (gradients) and EigenCAM (activations) show for all of them.
OF_ONE_PASS = {
    *("GradCAMPlusPlus", "XGradCAM", "HiResCAM", "LayerCAM", "GradCAMElementWise", "EigenGradCAM", "SegEigenCAM"),
    *("RandomCAM", "KPCACAM", "PositionAttention"),
}
OF_EACH_PASS = [case for case in FIRST if case.method not in OF_ONE_PASS]


def _linear_occlusion(inputs, target):
    """A window's fall is w · (x − b) summed over it; here one window of the whole image and a tiling of 1x1."""
    model = Linear(inputs.shape[1:])
    weight = model.weight.detach()[target]
    return model, {"window": 1, "baseline": 0.25}, (weight * (inputs - 0.25)).sum(1, keepdim=True)


def _linear_feature_ablation(inputs, target):
    """A segment of one position loses w · (x − b) there."""
    model = Linear(inputs.shape[1:])
    weight = model.weight.detach()[target]
    positions = torch.arange(inputs[0, 0].numel()).view(inputs.shape[2:])
    return model, {"segments": positions, "baseline": 0.25}, (weight * (inputs - 0.25)).sum(1, keepdim=True)


def _linear_positions(**settings):
    """What a segment of one position adds does not depend on the others: w · (x − b)."""

    def made(inputs, target):
        model, given, expected = _linear_feature_ablation(inputs, target)
        return model, {**given, **settings}, expected

    return made


def _linear_partition_shap(inputs, target):
    """Whatever is shown beside it, a position adds w · (x − b) there."""
    model = Linear(inputs.shape[1:])
    weight = model.weight.detach()[target]
    settings = {"n_evaluations": 2000, "baseline": 0.25}
    return model, settings, (weight * (inputs - 0.25)).sum(1, keepdim=True)


def _linear_rise(inputs, target):
    """One cell is all of the input or nothing; of pairs of opposites one shows all, which the map is the score of."""
    model = Linear(inputs.shape[1:])
    score = model(inputs).detach()[:, target].view(-1, 1, 1, 1)
    settings = {"n_masks": 6, "cells": 1, "sampler": "antithetic", "baseline": 0.25}
    return model, settings, score.expand(-1, 1, *inputs.shape[2:])


def _linear_drise(inputs, target):
    """The same, less the mean of the scores of all and of nothing."""
    model = Linear(inputs.shape[1:])
    scores, empty = (model(x).detach()[:, target] for x in (inputs, torch.full_like(inputs, 0.25)))
    settings = {"n_masks": 6, "cells": 1, "sampler": "antithetic", "baseline": 0.25, "centred": True}
    return model, settings, ((scores - empty) / 2).view(-1, 1, 1, 1).expand(-1, 1, *inputs.shape[2:])


def _linear_saliency(inputs, target):
    model = Linear(inputs.shape[1:])
    return model, {"absolute": False}, model.weight.detach()[target].expand_as(inputs)


def _linear_input_x_gradient(inputs, target):
    model = Linear(inputs.shape[1:])
    return model, {}, model.weight.detach()[target] * inputs


def _linear_gradcam(inputs, target):
    """With a mean and a linear layer behind it, α_k = w_k / positions, and the map is CAM over the positions."""
    model = pooled_head(inputs.shape[1:])
    weight = model[3].weight.detach()[target] / inputs[0, 0].numel()
    features = model[0](inputs).detach()
    return model, {"layer": "0"}, torch.einsum("k,nkhw->nhw", weight, features)[:, None].clamp_min(0)


def _linear_ablation_cam(inputs, target):
    """Without channel k the score lacks w_k · mean(A_k), and that is the channel's weight."""
    model = pooled_head(inputs.shape[1:])
    features = model[0](inputs).detach()
    weights = model[3].weight.detach()[target] * features.mean((2, 3))
    return model, {"layer": "0"}, torch.einsum("nk,nkhw->nhw", weights, features)[:, None].clamp_min(0)


def _linear_recipro_cam(inputs, target):
    """What is left around p adds its share of CAM, so the map is CAM over the positions, blurred, 0 outside."""
    model = pooled_head(inputs.shape[1:])
    weight = model[3].weight.detach()[target] / inputs[0, 0].numel()
    cam = torch.einsum("k,nkhw->nhw", weight, model[0](inputs).detach())[:, None]
    line = torch.tensor([0.25, 0.5, 0.25])
    return model, {"layer": "0"}, nn.functional.conv2d(cam, torch.outer(line, line)[None, None], padding=1)


CLOSED_FORMS = {
    "Occlusion": _linear_occlusion,
    "FeatureAblation": _linear_feature_ablation,
    "ShapleySampling": _linear_positions(n_permutations=2),
    "KernelShap": _linear_positions(n_samples=80),
    "Lime": _linear_positions(n_samples=80, alpha=0.0),
    "PartitionShap": _linear_partition_shap,
    "RISE": _linear_rise,
    "DRISE": _linear_drise,
    "Saliency": _linear_saliency,
    "InputXGradient": _linear_input_x_gradient,
    "GradCAM": _linear_gradcam,
    "AblationCAM": _linear_ablation_cam,
    "ReciproCAM": _linear_recipro_cam,
    **CAM_CLOSED_FORMS,
    **GRADIENT_CLOSED_FORMS,
    **ATTENTION_CLOSED_FORMS,
}
