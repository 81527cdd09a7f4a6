"""Shapley values of several classes side by side, and of shallow and deep layers of the same network.

    python examples/shapley_classes.py --out shapley_classes.png

Four photographs share one picture, and the network can be asked about each of them. The first row divides each class's
score among boxes that are halved where it matters most (Owen values; one run serves all classes). Red raises the score
of the class, blue lowers it, and every map sums to what the picture adds over a blurred one. The second row asks where
one class lies for GradientSHAP at shallower and deeper layers: edges first, whole objects last.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from _command_line import parse
from PIL import Image

import xai_fast as xf
from xai_fast.models.demo import photograph
from xai_fast.report import Bar, Panel, Row, Scale, figure, overlay, save_png

NAMES = ("cat", "coffee", "rocket", "motorcycle")
LAYERS = ("layer1", "layer2", "layer3", "layer4")


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    options = parse(__doc__, "shapley_classes.png", arguments)
    model, preprocess, classes = xf.load("demo")
    views = [preprocess.view(photograph(name)) for name in NAMES]
    side = views[0].width // 2
    four = Image.new("RGB", (2 * side, 2 * side))
    for n, view in enumerate(views):
        four.paste(view.resize((side, side), Image.Resampling.LANCZOS), (n % 2 * side, n // 2 * side))
    inputs = preprocess(four)[None]

    targets = torch.tensor([[classes.index(name) for name in NAMES]])
    owen = xf.PartitionShap(model, n_evaluations=100 if options.coarse else 2000)(inputs, targets)
    (view,) = owen.views(inputs)

    def panel(values: np.ndarray, title: str, said: str) -> Panel:
        scale = Scale.of(values, signed=True)
        shown = overlay(view, values, signed=True, scale=scale, style="heatmap")
        # On a grey photograph, whose own colours would be taken for values.
        return Panel(Image.blend(view.convert("L").convert("RGB"), shown.convert("RGB"), 0.6), title, said, Bar(scale))

    first = [Panel(view, "four photographs", f"{int(owen.evaluations[0])} model rows for all classes")]
    for k, name in enumerate(NAMES):
        values = owen.heatmap()[0, k].numpy()
        first.append(panel(values, name, f"sums to {values.sum():.2f}, score {float(owen.score[0, k]):.2f}"))

    second = [None]
    for layer in LAYERS[-2:] if options.coarse else LAYERS:
        method = xf.GradientShap(model, layer=layer, baselines="blur", n_samples=8 if options.coarse else 50)
        at_layer = method(inputs, targets[0, :1]).values.sum(1, keepdim=True)
        values = torch.nn.functional.interpolate(at_layer, inputs.shape[2:], mode="bilinear")[0, 0].numpy()
        second.append(
            panel(values, f"{NAMES[0]} at {layer}", f"GradientSHAP, {at_layer.shape[2]} x {at_layer.shape[3]}")
        )
    path = save_png(figure([Row(first), Row(second)], width=260), options.out)
    gap = float(owen.completeness_gap.abs().max())
    print(f"each map sums to its score difference within {gap:.0e}; wrote {path}")
    return path


if __name__ == "__main__":
    main()
