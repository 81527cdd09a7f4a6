"""LIME on photographs: green regions speak for the class, red ones against it.

    python examples/lime_regions.py --out lime_regions.png

The photograph of the astronaut has a rocket behind her, so the network can be asked about either. Every superpixel is
painted in its own mean colour in half of a thousand variants; a linear model of the scores gives each its weight, for
both classes from one run. R² says how much of the scores the linear model explains: a picture with a low one is not to
be trusted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from _command_line import parse
from _regions import regions

import xai_fast as xf
from xai_fast.models.demo import photograph
from xai_fast.report import Panel, Row, figure, save_png

PHOTOS = {"astronaut": ("astronaut", "rocket"), "cat": ("cat", "brick"), "coffee": ("coffee", "moon")}


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    options = parse(__doc__, "lime_regions.png", arguments)
    model, preprocess, classes = xf.load("demo")

    def superpixels(picture: np.ndarray) -> np.ndarray:
        from skimage.segmentation import slic

        return slic(picture, n_segments=50, compactness=10, sigma=1, start_label=0)

    method = xf.Lime(model, segments=superpixels, n_samples=100 if options.coarse else 1000)
    rows, fits = [], []
    for name, asked in PHOTOS.items():
        inputs = preprocess(photograph(name))[None]
        explanation = method(inputs, torch.tensor([[classes.index(label) for label in asked]]))  # both from one run
        (view,) = explanation.views(inputs)
        panels = [Panel(view, "photograph", name)]
        found = zip(asked, explanation.heatmap()[0], explanation.score[0], explanation.fit[0], strict=True)
        for label, values, score, fit in found:
            said = f"score {float(score):.1f}, R² {float(fit):.2f}"
            panels.append(Panel(regions(view, values.numpy(), count=10), f"for and against {label}", said))
            fits.append(float(fit))
        rows.append(Row(panels))
    path = save_png(figure(rows, width=300), options.out)
    print(f"linear models explain {min(fits):.0%} to {max(fits):.0%} of the answers; wrote {path}")
    return path


if __name__ == "__main__":
    main()
