"""Whether maps tell what the network learnt: heat in the right cell of mosaics, and maps that random weights change.

    python benchmarks/randomisation.py --json randomisation.json [--only GradCAM ...]

Both on the bundled network. Nothing is timed, so that it may run beside other work. Random weights change a map that is
no more like the maps that 20 networks of such weights make of the same picture than like those that one of them makes
of others, or not alike at all: by Spearman's correlation of absolute values (after Adebayo et al. 2018,
arXiv:1810.03292).
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from methods import CONSOLE, save
from rich.table import Table
from torch import Tensor, nn
from trained import subjects

import xai_fast as xf
from xai_fast.models.demo import DemoNetwork, demo_model
from xai_fast.models.demo.mosaics import Mosaic, counts, mosaics, positive_share

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "methods"))

DRAWN, COUNTED, SEED = 12, 6, 3  # mosaics; of those whose class lies in its cell, how many
REPLICAS = 2  # mosaics that the slow twins in tests/methods explain
SMALL, PICTURES, NETWORKS = 112, 4, 20  # side and number of the mosaics that random networks explain too, and those
LEAST = {"GradCAM": 0.8, "HiResCAM": 0.8, "AblationCAM": 0.65}  # bars for the share in the right cell
# Coarser than by default where a map asks for hundreds of rows.
SETTINGS: dict[str, dict[str, Any]] = {
    "FeatureAblation": {"segments": "grid"},
    "ShapleySampling": {"segments": "grid", "n_permutations": 2},
    "KernelShap": {"segments": "grid", "n_samples": 128},
    "Lime": {"segments": "grid", "n_samples": 96},
    "PartitionShap": {"n_evaluations": 64},
    "RISE": {"n_masks": 150},
    "SSCAM": {"n_samples": 1},
    "ISCAM": {"n_samples": 1},
    "GradientShap": {"n_samples": 10},
    "IntegratedGradients": {"n_steps": 10},
    "SmoothGrad": {"n_samples": 10},
    "SmoothGradCAMPlusPlus": {"n_samples": 5},
    "Occlusion": {"window": 28, "stride": 28},
}
# The twins that draw what ours draw, or that are a formula of one pass; the others are tested on smaller inputs.
TWINS = (
    *("AblationCAM", "ClassAttention", "EigenCAM", "EigenGradCAM", "FinerCAM", "GradCAM", "GradCAMElementWise"),
    *("GradCAMPlusPlus", "HiResCAM", "InputXGradient", "KPCACAM", "LayerCAM", "PositionAttention", "RandomCAM"),
    *("Saliency", "SegEigenCAM", "ShapleyCAM", "XGradCAM", "CAM", "GuidedBackprop", "Deconvolution"),
)


def main() -> None:
    """Runs the methods, prints a table, writes the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="names of methods")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    arguments = parser.parse_args()
    model = demo_model()
    counted = [mosaic for mosaic in mosaics(DRAWN, seed=SEED) if counts(model, mosaic)]
    records = []
    for name in arguments.only or applicable():
        records.append(measure(name, model, counted[:COUNTED]))
        if arguments.json:
            save(arguments.json, 1, records)
    CONSOLE.print(table(records))


def applicable() -> list[str]:
    """Methods that make a map of a convolutional network's score, those of few rows first."""
    found = xf.methods().items()
    names = [name for name, info in found if info.attributes and not info.module.startswith("attention")]
    names.remove("DRISE")  # is about boxes
    model = demo_model()
    return sorted(names, key=lambda name: method(name, model).cost((1, 3, SMALL, SMALL)).forwards)


def measure(name: str, model: nn.Module, counted: list[Mosaic]) -> dict[str, Any]:
    """The record of one method."""
    shares = [positive_share(heat, at.cell) for heat, at in zip(maps(name, model, counted), counted, strict=True)]
    few = counted[:PICTURES]
    first, *others = [ranks(maps(name, each, few, SMALL)) for each in (model, *random_networks(NETWORKS))]
    alike = torch.stack([first @ other.T for other in others])  # (networks, the trained one's mosaic, theirs)
    same, number = alike.diagonal(dim1=1, dim2=2).mean(1), len(few)
    chance = (alike.sum((1, 2)) - same * number) / (number * (number - 1))
    return {
        "shares": name,
        "settings": {key: str(value) for key, value in SETTINGS.get(name, {}).items()},
        "mosaics": len(counted),
        "share": sum(shares) / len(shares),
        "least": LEAST.get(name),
        "twin": twin(name, model, counted[:REPLICAS]),
        "networks": NETWORKS,
        "likeness": {
            "random": same.mean().item(),
            "chance_least": chance.min().item(),
            "chance_most": chance.max().item(),
        },
        "changes": same.mean().item() <= max(chance.max().item(), 0.0),  # what is not alike at all has changed
    }


def maps(name: str, model: nn.Module, of: list[Mosaic], side: int = 224) -> list[Tensor]:
    """The method's map (H, W) of each mosaic's target, channels added up."""
    inputs, targets = torch.stack([mosaic.inputs for mosaic in of]), [mosaic.target for mosaic in of]
    inputs = nn.functional.interpolate(inputs, (side, side), mode="area")
    return list(method(name, model).attribute(inputs, targets).sum(1))


def method(name: str, model: nn.Module) -> Any:
    """The method under the settings of the record."""
    info = xf.methods()[name]
    return info.cls(model, **{**info.starting, **SETTINGS.get(name, {})})


def twin(name: str, model: nn.Module, of: list[Mosaic]) -> dict[str, float] | None:
    """The mean share of a few mosaics beside that of the method's slow twin in float64; None where that has none."""
    if name not in TWINS:
        return None
    from table import CASES

    replica = next(case.replica for case in CASES if case.method == name)
    info, inputs = xf.methods()[name], torch.stack([mosaic.inputs for mosaic in of])
    of_cam = info.module.startswith("cam.")
    settings = (
        {"layer": "layer4", "resolution": "native"} if of_cam else {"channels": None} if name == "Saliency" else {}
    )
    ours = method(name, model).attribute(inputs, [m.target for m in of], **({"resolution": "native"} if of_cam else {}))
    theirs = replica(model, inputs, [m.target for m in of], **settings)
    shares = [
        sum(positive_share(heat.sum(0), mosaic.cell) for heat, mosaic in zip(found, of, strict=True)) / len(of)
        for found in (ours.double(), theirs)
    ]
    return dict(zip(("ours", "twin"), shares, strict=True))


@functools.cache
def random_networks(count: int) -> list[nn.Module]:
    """Networks with weights drawn anew, whose normalisations have seen the photographs, so that they are awake."""
    _, inputs, _ = subjects("demo")
    made = []
    with torch.random.fork_rng(devices=[]):
        for seed in range(count):
            torch.manual_seed(seed)
            network = DemoNetwork()
            for part in network.modules():
                if isinstance(part, nn.Conv2d):
                    nn.init.kaiming_normal_(part.weight)
                if isinstance(part, nn.BatchNorm2d):
                    part.momentum = 1.0
            with torch.no_grad():
                network.train()(inputs)
            network.centre_logits()
            made.append(network.eval())
    return made


def ranks(of: Iterable[Tensor]) -> Tensor:
    """Absolute values of maps, averaged over 4 x 4 pixels, as ranks of mean 0 and length 1; products are Spearman's."""
    means = nn.functional.avg_pool2d(torch.stack([heat.abs() for heat in of]).double(), 4).flatten(1)
    order = means.argsort(1).argsort(1).double()
    centred = order - order.mean(1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True)


def table(records: list[dict[str, Any]]) -> Table:
    """For the terminal."""
    made = Table("method", "share", "its twin's", "likeness", "by chance", "changes")
    for record in records:
        likeness, slow = record["likeness"], record["twin"]
        made.add_row(
            record["shares"],
            f"{record['share']:.3f}",
            "" if slow is None else f"{slow['ours']:.6f} / {slow['twin']:.6f}",
            f"{likeness['random']:.3f}",
            f"{likeness['chance_least']:.3f} to {likeness['chance_most']:.3f}",
            "yes" if record["changes"] else "no",
        )
    return made


if __name__ == "__main__":
    main()
