"""Integrated gradients of photographs, and what averaging their squares under noise makes of them.

    python examples/integrated_gradients.py --out integrated_gradients.png

In the middle every pixel's share of the score: red speaks for the class, blue against it, and the shares sum to the
score less that of plain grey. On the right the same method inside a SmoothGrad of squares: the sign is gone, weak and
wavering shares fade, and what is left outlines the parts that matter, almost like a segmentation.
"""

from __future__ import annotations

from pathlib import Path

import torch
from _command_line import parse
from _small_cnn import load, photograph

import xai_fast as xf
from xai_fast.report import Bar, Panel, Row, Scale, figure, overlay, save_png


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    options = parse(__doc__, "integrated_gradients.png", arguments)
    names = ("cat",) if options.coarse else ("cat", "astronaut", "motorcycle")
    n_steps, n_samples = (8, 4) if options.coarse else (32, 16)

    model, preprocess, _ = load(options.out.parent, options.coarse)
    photos = [photograph(name) for name in names]
    inputs = torch.stack([preprocess(photo) for photo in photos])

    plain = xf.IntegratedGradients(model, n_steps=n_steps, baseline=0.0)  # 0.0 is grey in this network's space
    squared = xf.SmoothGrad(plain, n_samples=n_samples, noise=0.15, aggregate="square")
    shares, outlines = plain(inputs), squared(inputs)

    gaps = shares.completeness_gap
    assert gaps is not None  # the method promises a sum, and measures how far off it is
    rows = []
    for n, view in enumerate(shares.views(photos)):
        share, outline = shares.heatmap()[n].numpy(), outlines.heatmap()[n].numpy()
        label, gap = shares.target_names(n)[0], abs(float(gaps[n]))
        signed, unsigned = Scale.of(share, signed=True), Scale.of(outline, signed=False)
        signed_map = overlay(view, share, signed=True, scale=signed, style="heatmap")
        outlined = overlay(view, outline, signed=False, scale=unsigned, alpha=0.8)
        said = f"{n_samples} noisy copies of {n_steps} steps"
        rows.append(
            Row(
                [
                    Panel(view, names[n], f"{label}: {float(shares.score[n]):.2f}"),
                    Panel(
                        signed_map,
                        "integrated gradients",
                        f"sum {share.sum():.2f}, gap {gap:.2g}",
                        Bar(signed, "score"),
                    ),
                    Panel(outlined, "squares under noise", said, Bar(unsigned, "score²")),
                ]
            )
        )
    path = save_png(figure(rows), options.out)
    print(f"{int(shares.evaluations.sum() + outlines.evaluations.sum())} model rows; wrote {path}")
    return path


if __name__ == "__main__":
    main()
