"""What is measured of the methods of segments and coalitions: one entry per method, network and library."""

from __future__ import annotations

from typing import Any

import perturbation_peers as peers
from case import Case
from torch import Tensor

import xai_fast as xf

SIDE = 224
CELLS = 8  # along each axis, of the segments of coalitions
FEW = 140  # samples where a comparison of numbers or of settings is enough


def _grid(x: Tensor) -> Tensor:
    return peers.cells(CELLS, x.shape[-1])


def feature_ablation(network: str, bar: float, count: int = 100) -> Case:
    """Superpixels hidden one at a time: the local plan against whole forwards."""

    def segments(x: Tensor) -> Tensor:
        return peers.superpixels(x, count)

    return Case(
        f"feature-ablation-{network}",
        network,
        lambda model: _Segmented(lambda labels: xf.FeatureAblation(model, segments=labels), segments),
        "captum",
        peers.captum_feature_ablation(segments),
        sweep=(1, 4, 8, 16, 32),
        bar=bar,
        dense=False,
        notes=("superpixels by SLIC, found anew by both sides in every call",),
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
    **settings: Any,
) -> Case:
    """The same segments and as many rows on either side; draws are each side's own, numbers compared on ours."""
    count = "n_permutations" if method == "ShapleySampling" else "n_samples"

    def make(samples: int) -> Any:
        labels = peers.cells(CELLS, SIDE)
        return lambda model: getattr(xf, method)(model, segments=labels, **{count: samples}, **settings)

    def their(samples: int) -> Any:
        if library == "lime":
            return peers.lime_image(_grid, samples)
        return peers.captum_coalitions(peer, _grid, samples)

    few = 2 if method == "ShapleySampling" else FEW
    return Case(
        f"{name}-{network}",
        network,
        make(n_samples),
        library,
        their(n_samples),
        default=default,
        sweep=tuple(sorted({1, 4, 8, 16, 32, default})),
        bar=bar,
        bar_default=bar_default,
        precise=make(few),
        precise_peer=their(few),
        same_draws=peers.on_our_coalitions(make(few)),
        notes=(f"{CELLS} x {CELLS} cells as segments, so that finding them costs neither side anything",),
    )


def partition(network: str, bar: float, bar_default: float, n_evaluations: int = 500) -> Case:
    """Owen values; both sides choose their boxes by what they see, so their maps agree in rank and not in number."""

    def make(count: int) -> Any:
        return lambda model: xf.PartitionShap(model, n_evaluations=count, baseline=0.0)

    return Case(
        f"partition-shap-{network}",
        network,
        make(n_evaluations),
        "shap",
        peers.shap_partition(n_evaluations),
        default=10,
        sweep=(4, 10, 16, 32),
        bar=bar,
        bar_default=bar_default,
        notes=("the error is that of maps whose boxes each side chooses itself: it says how far they agree",),
    )


class _Segmented:
    """A method whose segments are found in every call, as the library's user finds them."""

    def __init__(self, make: Any, segments: Any) -> None:
        self._make, self._segments = make, segments

    def attribute(self, x: Tensor, target: Tensor) -> Tensor:
        """The map of segments found now."""
        return self._make(self._segments(x)).attribute(x, target)


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
                "lime-captum", network, "Lime", "captum", "Lime", 1000, captum, default, surrogate="lasso", baseline=0.0
            ),
            coalitions("kernel-shap", network, "KernelShap", "captum", "KernelShap", 1000, captum),
            coalitions("shapley-sampling", network, "ShapleySampling", "captum", "ShapleyValueSampling", 25, shapley),
        )
    ),
    partition("resnet18", 1.4, 4.0),
    partition("resnet50", 1.4, 2.5),
)
