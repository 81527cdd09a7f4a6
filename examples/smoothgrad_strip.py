"""How a map clears up with the number of noisy samples: SmoothGrad's intermediate maps from one run, as a strip.

    python examples/smoothgrad_strip.py --out smoothgrad_strip.png

Noise of a fifth of the pixel range is added to the input; of each noisy copy the loss of the softmax output at that
copy's own winner is explained, which need not be the photograph's, and the largest absolute gradient over channels is
averaged. A single noisy copy shows speckle, a few the outlines, a hundred a steady map: what changes no more between
the last ones is not chance. Every map has its own scale, from black to pale yellow, in the numbers above it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from _command_line import parse
from _small_cnn import load, photograph
from torch import Tensor

import xai_fast as xf
from xai_fast.report import Panel, Row, Scale, figure, overlay, save_png

MARKS = (1, 2, 3, 10, 20, 30, 50, 75, 100)


def own_loss(logits: Tensor) -> Tensor:
    """−log p of the class that wins in each row, noisy or not: (rows, classes) to (rows,)."""
    return -logits.log_softmax(1).amax(1)


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    options = parse(__doc__, "smoothgrad_strip.png", arguments)
    names, marks = (("cat",), MARKS[:4]) if options.coarse else (("cat", "astronaut", "motorcycle"), MARKS)

    model, preprocess, _ = load(options.out.parent, options.coarse)
    photos = [photograph(name) for name in names]
    inputs = torch.stack([preprocess(photo) for photo in photos])

    gradient = xf.Saliency(model, channels="max")
    smooth = xf.SmoothGrad(gradient, n_samples=marks[-1], noise=0.2, relative="range", snapshots=marks)
    clean, noisy = gradient(inputs, target=own_loss), smooth(inputs, target=own_loss)

    rows = []
    for n, view in enumerate(clean.views(photos)):
        maps = {"no noise": clean.values} | {f"n = {mark}": noisy.snapshots[mark] for mark in marks}
        panels = [Panel(view, names[n], f"loss {float(clean.score[n]):.2g}")]
        for title, values in maps.items():
            heatmap = values[n, 0].numpy()
            scale = Scale.of(heatmap, signed=False)
            picture = overlay(view, heatmap, signed=False, scale=scale, style="heatmap")
            panels.append(Panel(picture, title, f"{scale.low:.1g} to {scale.high:.1g}"))
        rows.append(Row(panels))
    path = save_png(figure(rows, width=220), options.out)
    print(f"{int(noisy.evaluations.sum())} model rows for {len(marks)} maps of each photograph; wrote {path}")
    return path


if __name__ == "__main__":
    main()
