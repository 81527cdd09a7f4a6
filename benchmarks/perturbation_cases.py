"""What is measured of the methods of segments and coalitions: one entry per method, network and library."""

from __future__ import annotations

import functools
from typing import Any

import perturbation_peers as peers
from case import Case, Method, Part
from torch import Tensor

import xai_fast as xf

SIDE = 224
CELLS = 8  # along each axis, of the segments of coalitions
FEW = 140  # samples where a comparison of numbers or of settings is enough: more than twice as many as segments
SOME = 256  # samples where none are prescribed: a model row costs the same whatever their number


def feature_ablation(network: str, bar: float, size: int = SIDE) -> Case:
    """Superpixels hidden one at a time: the local plan against whole forwards."""
    labels = functools.cache(peers.superpixels)
    return Case(
        f"feature-ablation-{network}",
        network,
        lambda model: xf.FeatureAblation(model, segments=labels(size)),
        "captum",
        peers.captum_feature_ablation(lambda x: labels(x.shape[-1])),
        sweep=(1, 4, 8, 16, 32),
        size=size,
        bar=bar,
        dense=False,
        notes=("superpixels by SLIC, found before",),
    )


def coalitions(
    name: str,
    network: str,
    method: str,
    library: str,
    peer: str,
    n_samples: int,
    bar: float,
    bar_default: float | None = None,
    *,
    default: int = 1,
    size: int = SIDE,
    few: int = FEW,
    cells: int = CELLS,
    sweep: tuple[int, ...] = (1, 4, 8, 16),
    **settings: Any,
) -> Case:
    """The same segments and as many rows on either side; draws are each side's own, numbers compared on ours."""
    count = "n_permutations" if method == "ShapleySampling" else "n_samples"

    def make(samples: int) -> Any:
        labels = peers.cells(cells, size)
        return lambda model: getattr(xf, method)(model, segments=labels, **{count: samples}, **settings)

    def grid(x: Tensor) -> Tensor:
        return peers.cells(cells, x.shape[-1])

    def their(samples: int) -> Any:
        if library == "lime":
            return peers.lime_image(grid, samples)
        return peers.captum_coalitions(peer, grid, samples)

    return Case(
        f"{name}-{network}",
        network,
        make(n_samples),
        library,
        their(n_samples),
        default=default,
        sweep=tuple(sorted({*sweep, default})),
        size=size,
        bar=bar,
        bar_default=bar_default,
        precise=make(few),
        precise_peer=their(few),
        same_draws=peers.on_our_coalitions(make(few)),
        notes=(f"{cells} x {cells} cells as segments, so that finding them costs neither side anything",),
    )


def partition(network: str, bar: float, size: int = SIDE, n_evaluations: int = 500) -> Case:
    """Owen values of one output against shap's PartitionExplainer, whose order depends on its batches."""
    few = min(60, n_evaluations)
    return Case(
        f"partition-shap-{network}",
        network,
        _partition(n_evaluations),
        "shap",
        peers.shap_partition(n_evaluations),
        default=10,
        sweep=(4, 8, 10, 16, 32),
        size=size,
        bar=bar,
        precise=_partition(few),
        precise_peer=peers.shap_partition(few),
        same_draws=lambda model, _masks: peers.shap_partition(few)(model, 2),
        notes=("errors are of 60 evaluations, which both sides take box by box",),
    )


def partition_of_all(network: str, bar_default: float, size: int = SIDE, n_evaluations: int = 100) -> Case:
    """Owen values of all outputs, which shap's explainer gives where none are named, and ours from one run."""
    return Case(
        f"partition-shap-all-{network}",
        network,
        _partition(n_evaluations),
        "shap",
        peers.shap_partition(n_evaluations, named=False),
        default=10,
        sweep=(10,),
        size=size,
        bar_default=bar_default,
        same_draws=lambda model, _masks: peers.shap_partition(n_evaluations, named=False)(model, 2),
        outputs=1000,
        notes=(
            f"{n_evaluations} evaluations rather than shap's 500, on either side: with as few of them ours split one "
            "box at a time, two rows per forward",
        ),
    )


def _partition(n_evaluations: int) -> Method:
    return lambda model: xf.PartitionShap(model, n_evaluations=n_evaluations, baseline=0.0)


def rise(network: str, bar: float | None, n_masks: int, part: int | None, sweep: tuple[int, ...], **more: Any) -> Case:
    """Against the algorithm of the paper's authors, which keeps all masks; `part` of whose forwards are timed."""
    few = min(64, n_masks)

    def method(count: int) -> Method:
        return lambda model: xf.RISE(model, n_masks=count)

    return Case(
        f"rise-{network}",
        network,
        method(n_masks),
        "torch",
        peers.rise(n_masks),
        default=max(sweep),
        sweep=sweep,
        bar=bar,
        part=None if part is None else Part(part, n_masks, "masks"),
        precise=method(few),
        precise_peer=peers.rise(few),
        same_draws=peers.on_our_coalitions(method(few)),
        notes=("no library has RISE: the paper's algorithm in plain PyTorch, its masks made before, and kept",),
        **more,
    )


# One row of it takes as long as six of ResNet-50, whatever is explained: so few rows, of segments so large.
_VIT: dict[str, Any] = {"size": SIDE, "few": 40, "cells": 4}

PERTURBATION_CASES = (
    feature_ablation("resnet50", 2.8),
    feature_ablation("vgg16", 7.0),
    *(
        case
        for network, many, some, orders, lime, captum, default, shapley in (
            ("resnet50", SOME, FEW, 2, 1.35, 1.3, 1.5, 1.4),
            ("resnet18", 1000, SOME, 5, 1.5, 1.5, 2.0, 1.7),
        )
        for case in (
            coalitions("lime", network, "Lime", "lime", "", many, lime, default=10, baseline="segment_mean"),
            coalitions(
                "lime-captum", network, "Lime", "captum", "Lime", some, captum, default, surrogate="lasso", baseline=0.0
            ),
            coalitions("kernel-shap", network, "KernelShap", "captum", "KernelShap", some, captum),
            coalitions(
                "shapley-sampling", network, "ShapleySampling", "captum", "ShapleyValueSampling", orders, shapley, few=2
            ),
        )
    ),
    coalitions(
        "lime", "vit_b_16", "Lime", "lime", "", 48, 1.6, default=10, baseline="segment_mean", sweep=(8, 16), **_VIT
    ),
    partition("resnet50", 1.4),
    partition("resnet18", 1.4),
    partition_of_all("resnet50", 4.0),
    partition_of_all("resnet18", 2.5),
    rise("resnet18", None, 4000, 200, (8, 20, 100), bar_growth=0.5e9),
    rise("resnet50", None, 48, None, (8, 16)),
    rise("vit_b_16", 1.6, 48, None, (8, 16)),
)
