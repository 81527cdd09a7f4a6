"""Two filters of one layer: where they fire in photographs, and what they want to see.

    python examples/filters.py --out filters.png

The layer is `cnn.15`, a ReLU behind five convolutions. One filter is the one that fires most strongly on these
photographs, the other is the least like it among the twelve strongest. Beside each activation stands the photograph
after a hundred steps of Adam that raise the filter's activation summed over positions: what it answers to is painted
over everything. The last row starts from noise, once pixel by pixel and once in the picture's spectrum.
"""

from __future__ import annotations

from pathlib import Path

import torch
from _command_line import parse
from _small_cnn import load, photograph

import xai_fast as xf
from xai_fast.report import Bar, Panel, Row, Scale, figure, save_png

LAYER = "cnn.15"


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    options = parse(__doc__, "filters.png", arguments)
    names, n_steps = (("cat",), 8) if options.coarse else (("cat", "coffee", "motorcycle"), 100)
    model, preprocess, _ = load(options.out.parent, options.coarse)
    inputs = torch.stack([preprocess(photograph(name)) for name in names])

    engine = xf.Engine.of(model)
    every = xf.FilterActivation(engine, layer=LAYER)(inputs)
    strong = every.strongest(12)
    alike = torch.corrcoef(every.values[:, strong].transpose(0, 1).flatten(1))
    chosen = [strong[0], strong[int(alike[0].argmin())]]
    maps = xf.FilterActivation(engine, layer=LAYER, filters=chosen)(inputs)
    settings = {"layer": LAYER, "filters": chosen, "n_steps": n_steps, "lr": 0.1}
    painted = xf.ActivationMaximization(engine, start="image", **settings)(inputs)
    dreamt = {
        "pixels": xf.ActivationMaximization(engine, start="noise", **settings)(),
        "spectrum": xf.ActivationMaximization(engine, start="noise", parametrization="fourier", **settings)(),
    }

    scales = [Scale.of(maps.values[:, k].numpy(), signed=False) for k in range(2)]
    fired, pictures = maps.overlay(), painted.pictures()
    rows = []
    for n, name in enumerate(names):
        panels = [Panel(preprocess.view(photograph(name)), name)]
        for k, number in enumerate(chosen):
            before, after = painted.scores[:, n, k].tolist()
            panels += [
                Panel(fired[2 * n + k], f"filter {number}", "its activation", Bar(scales[k])),
                Panel(pictures[2 * n + k], f"filter {number}", f"raised from {before:,.0f} to {after:,.0f}"),
            ]
        rows.append(Row(panels))
    from_noise = [
        Panel(found.pictures()[k], f"filter {number}", f"noise, {kind}: to {found.scores[1, 0, k].item():,.0f}")
        for k, number in enumerate(chosen)
        for kind, found in dreamt.items()
    ]
    rows.append(Row([None, *from_noise]))
    path = save_png(figure(rows, width=300), options.out)
    print(f"filters {chosen[0]} and {chosen[1]} of {LAYER}; wrote {path}")
    return path


if __name__ == "__main__":
    main()
