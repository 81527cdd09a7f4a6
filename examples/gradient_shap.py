"""GradientSHAP against several reference photographs, and the same smoothed by noise on the input.

    python examples/gradient_shap.py --out gradient_shap.png

The first row holds the references. Red pixels make the score larger than the references' mean, blue ones smaller. Every
draw compares with one reference at a random point on the way, and the references' own patterns show through: bricks
run over the cat's face. A SmoothGrad around the method averages over as many draws for each of several noisy copies;
what stays is what neither the draws nor the noise explain.
"""

from __future__ import annotations

from pathlib import Path

import torch
from _command_line import parse
from _small_cnn import load, photograph

import xai_fast as xf
from xai_fast.report import Bar, Panel, Row, Scale, figure, overlay, save_png

REFERENCES = ("brick", "galaxies", "tissue")


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    options = parse(__doc__, "gradient_shap.png", arguments)
    names = ("cat",) if options.coarse else ("cat", "astronaut", "motorcycle")
    n_draws, n_copies = (6, 3) if options.coarse else (24, 16)

    model, preprocess, _ = load(options.out.parent, options.coarse)
    photos = [photograph(name) for name in names]
    inputs = torch.stack([preprocess(photo) for photo in photos])
    references = torch.stack([preprocess(photograph(name)) for name in REFERENCES])

    plain = xf.GradientShap(model, baselines=references, n_samples=n_draws)
    smoothed = xf.SmoothGrad(plain, n_samples=n_copies, noise=0.1)
    found = {f"{n_draws} draws": plain(inputs), f"{n_copies} noisy copies of {n_draws}": smoothed(inputs)}

    views = [preprocess.view(photograph(name)) for name in REFERENCES]
    rows = [Row([Panel(view, "reference", name) for name, view in zip(REFERENCES, views, strict=True)])]
    for n, photo in enumerate(photos):
        view = preprocess.view(photo)
        first = next(iter(found.values()))
        panels = [Panel(view, names[n], f"{first.target_names(n)[0]}: {float(first.score[n]):.2f}")]
        for said, explanation in found.items():
            heatmap = explanation.heatmap()[n].numpy()
            scale = Scale.of(heatmap, signed=True)
            picture = overlay(view, heatmap, signed=True, scale=scale, style="heatmap")
            panels.append(Panel(picture, explanation.name, said, Bar(scale, "score")))
        rows.append(Row(panels))
    path = save_png(figure(rows), options.out)
    print(f"{sum(int(e.evaluations.sum()) for e in found.values())} model rows; wrote {path}")
    return path


if __name__ == "__main__":
    main()
