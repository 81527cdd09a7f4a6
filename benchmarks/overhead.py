"""What `xai_fast.accelerate()` costs where it has nothing to save: per call, and when a process starts. See README.md.

    python -m benchmarks.overhead --json benchmarks/results/0.1.0/overhead--NAME.json

Per call: calls of the libraries on a network of three layers, plain and accelerated in turns; the cost is the
difference of the medians. At the start: fresh processes that import the library and end, plain and under
`python -m xai_fast.accelerate`, in turns.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import CONSOLE, save
from rich.table import Table
from timing import spread, timed
from torch import Tensor, nn

from xai_fast import accelerate

HERE = Path(__file__).resolve().parent
SIDES = ("plain", "accelerated")
MOST, FEWEST = 20.0, 5  # seconds after which a call is not repeated, but so many times
PER_CALL, AT_START = 1e-3, 0.5  # seconds, the bars
LIBRARIES = {
    "captum": "captum.attr",
    "torchcam": "torchcam.methods",
    "pytorch_grad_cam": "pytorch_grad_cam",
    "shap": "shap",
    "lime": "lime.lime_image",
}
Run = Callable[[], Any]


class Tiny(nn.Module):
    """Three layers, which answer in a fraction of a millisecond."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 5) of (N, 3, H, W)."""
        return self.head(self.relu(self.body(x)).mean((2, 3)))


def captum(model: nn.Module, image: Tensor) -> dict[str, Run]:
    """Calls that are passed on at once, and those whose work is too little."""
    attr = importlib.import_module("captum.attr")
    both = image.repeat(2, 1, 1, 1)
    return {
        "FeaturePermutation": lambda: attr.FeaturePermutation(model).attribute(both, target=1),
        "Saliency": lambda: attr.Saliency(model).attribute(image, target=1),
        "IntegratedGradients": lambda: attr.IntegratedGradients(model).attribute(image, target=1),
        "Occlusion": lambda: attr.Occlusion(model).attribute(image, (3, 4, 4), strides=(3, 4, 4), target=1),
        "LayerGradCam": lambda: attr.LayerGradCam(model, model.body).attribute(image, target=1),
    }


def torchcam(model: nn.Module, image: Tensor) -> dict[str, Run]:
    """An extractor that reads the user's own forward."""
    methods = importlib.import_module("torchcam.methods")
    extractor = methods.GradCAM(model, "body", input_shape=tuple(image.shape[1:]))
    return {"torchcam GradCAM": lambda: extractor(1, model(image))}


def pytorch_grad_cam(model: nn.Module, image: Tensor) -> dict[str, Run]:
    """One image once."""
    library = importlib.import_module("pytorch_grad_cam")
    targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    cam = library.GradCAM(model, [model.body])
    return {"grad-cam GradCAM": lambda: cam(image, [targets.ClassifierOutputTarget(1)])}


def shap(model: nn.Module, image: Tensor) -> dict[str, Run]:
    """Few draws."""
    library = importlib.import_module("shap")
    explainer = library.GradientExplainer(model, image.repeat(2, 1, 1, 1))
    return {"shap GradientExplainer": lambda: explainer.shap_values(image, nsamples=4, ranked_outputs=1, rseed=0)}


def lime(_model: nn.Module, image: Tensor) -> dict[str, Run]:
    """A function that answers at once."""
    library = importlib.import_module("lime.lime_image")
    pixels = image[0].permute(1, 2, 0).double().numpy()
    segments = np.arange(pixels.shape[0])[:, None] // 4 * np.ones(pixels.shape[1], dtype=int)

    def classify(images: np.ndarray) -> np.ndarray:
        bright = images.mean((1, 2, 3))
        return np.stack([bright, 1 - bright], 1)

    def run() -> Any:
        explainer = library.LimeImageExplainer(random_state=0)
        return explainer.explain_instance(
            pixels, classify, labels=(0,), top_labels=None, num_samples=10, segmentation_fn=lambda _image: segments
        )

    return {"lime LimeImageExplainer": run}


CALLS = {made.__name__: made for made in (captum, torchcam, pytorch_grad_cam, shap, lime)}


def main() -> None:
    """Measures, prints a table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", action="append", choices=LIBRARIES, help="default: all that are installed")
    parser.add_argument("--calls", type=int, default=200, help="of each side")
    parser.add_argument("--processes", type=int, default=9, help="of each side")
    parser.add_argument("--json", type=Path, help="write the records here")
    asked = parser.parse_args()
    names = asked.library or [name for name in LIBRARIES if importlib.util.find_spec(name) is not None]
    records = [record for name in names for record in per_call(name, asked.calls)]
    records += [at_start(name, asked.processes) for name in names]
    CONSOLE.print(table(records))
    if asked.json:
        save(asked.json, asked.calls, records)


def per_call(library: str, calls: int) -> list[dict[str, Any]]:
    """One record of each call."""
    importlib.import_module(LIBRARIES[library])
    torch.manual_seed(0)
    found = []
    for name, run in CALLS[library](Tiny(), torch.rand(1, 3, 16, 16)).items():
        taken: dict[str, list[float]] = {side: [] for side in SIDES}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in range(calls + 3):  # the first ones import what is imported with a call
                for side in SIDES if number % 2 else SIDES[::-1]:
                    seconds = accelerated(library, run) if side == "accelerated" else timed(run)
                    if number >= 3:
                        taken[side].append(seconds)
                if len(taken["plain"]) >= FEWEST and sum(map(sum, taken.values())) > MOST:
                    break  # one of them takes 0.4 s
        found.append(record(name, library, "call", taken, PER_CALL))
    return found


def accelerated(library: str, run: Run) -> float:
    """Seconds of a call, without those of switching on and off."""
    with accelerate.accelerate(library):
        return timed(run)


def at_start(library: str, processes: int) -> dict[str, Any]:
    """Whole processes that import the library and end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    taken: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(f"import {LIBRARIES[library]}\n")
        for number in range(processes + 1):  # the first of each side fills the caches of files
            for side in SIDES if number % 2 else SIDES[::-1]:
                through = ["-m", "xai_fast.accelerate"] if side == "accelerated" else []
                command = [sys.executable, *through, str(script)]
                seconds = timed(lambda command=command: subprocess.run(command, check=True, env=environment))
                if number:
                    taken[side].append(seconds)
    return record(f"import {LIBRARIES[library]}", library, "process", taken, AT_START)


def record(name: str, library: str, kind: str, taken: dict[str, list[float]], bar: float) -> dict[str, Any]:
    """What was measured."""
    seconds = {side: spread(each) for side, each in taken.items()}
    return {
        "overhead": name,
        "of": library,
        "kind": kind,
        "bar": bar,
        "rounds": len(taken["plain"]),
        "seconds": seconds,
        "added": seconds["accelerated"]["median"] - seconds["plain"]["median"],
    }


def table(records: list[dict[str, Any]]) -> Table:
    """The records as a person reads them, in milliseconds."""
    made = Table("call or process", "plain", "accelerated", "added", "allowed")
    for one in records:
        times = (one["seconds"]["plain"]["median"], one["seconds"]["accelerated"]["median"], one["added"], one["bar"])
        made.add_row(one["overhead"], *(f"{1e3 * seconds:.3g} ms" for seconds in times))
    return made


if __name__ == "__main__":
    main()
