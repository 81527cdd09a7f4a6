"""What is measured of the methods of segments and coalitions: one entry per method, network and library."""

from __future__ import annotations

import functools
from typing import Any

import perturbation_peers as peers
from case import Case
from torch import Tensor

import xai_fast as xf

SIDE = 224
CELLS = 8  # along each axis, of the segments of coalitions
FEW = 140  # samples where a comparison of numbers or of settings is enough: more than twice as many as segments
SOME = 256  # samples where none are prescribed: a model row costs the same whatever their number


def _grid(x: Tensor) -> Tensor:
    return peers.cells(CELLS, x.shape[-1])


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
    **settings: Any,
) -> Case:
    """The same segments and as many rows on either side; draws are each side's own, numbers compared on ours."""
    count = "n_permutations" if method == "ShapleySampling" else "n_samples"

    def make(samples: int) -> Any:
        labels = peers.cells(CELLS, size)
        return lambda model: getattr(xf, method)(model, segments=labels, **{count: samples}, **settings)

    def their(samples: int) -> Any:
        if library == "lime":
            return peers.lime_image(_grid, samples)
        return peers.captum_coalitions(peer, _grid, samples)

    return Case(
        f"{name}-{network}",
        network,
        make(n_samples),
        library,
        their(n_samples),
        default=default,
        sweep=tuple(sorted({1, 4, 8, 16, 32, default})),
        size=size,
        bar=bar,
        bar_default=bar_default,
        precise=make(few),
        precise_peer=their(few),
        same_draws=peers.on_our_coalitions(make(few)),
        notes=(f"{CELLS} x {CELLS} cells as segments, so that finding them costs neither side anything",),
    )


def partition(network: str, bar: float, bar_default: float, size: int = SIDE, n_evaluations: int = 500) -> Case:
    """Owen values against shap's PartitionExplainer, whose order depends on its batches."""

    def make(count: int) -> Any:
        return lambda model: xf.PartitionShap(model, n_evaluations=count, baseline=0.0)

    few = min(60, n_evaluations)
    return Case(
        f"partition-shap-{network}",
        network,
        make(n_evaluations),
        "shap",
        peers.shap_partition(n_evaluations),
        default=10,
        sweep=(4, 8, 10, 16, 32),
        size=size,
        bar=bar,
        bar_default=bar_default,
        precise=make(few),
        precise_peer=peers.shap_partition(few),
        same_draws=lambda model, _masks: peers.shap_partition(few)(model, 2),
        notes=("errors are of 60 evaluations, which both sides take box by box",),
    )


PERTURBATION_CASES = (
    feature_ablation("resnet50", 2.8),
    feature_ablation("vgg16", 7.0),
    *(
        case
        for network, lime, captum, default, shapley in (
            ("resnet50", 1.35, 1.3, 1.5, 1.4),
            ("resnet18", 1.5, 1.5, 2.0, 1.7),
        )
        for case in (
            coalitions("lime", network, "Lime", "lime", "", 1000, lime, default=10, baseline="segment_mean"),
            coalitions(
                "lime-captum", network, "Lime", "captum", "Lime", SOME, captum, default, surrogate="lasso", baseline=0.0
            ),
            coalitions("kernel-shap", network, "KernelShap", "captum", "KernelShap", SOME, captum),
            coalitions(
                "shapley-sampling", network, "ShapleySampling", "captum", "ShapleyValueSampling", 5, shapley, few=2
            ),
        )
    ),
    partition("resnet18", 1.4, 4.0),
    partition("resnet50", 1.4, 2.5),
)
