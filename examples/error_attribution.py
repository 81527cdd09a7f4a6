"""What made a network err: its wrong answers pushed back to the pixels, and to the positions of a layer.

    python examples/error_attribution.py --out error_attribution.png

The bundled network met a stamp on gravel and nowhere else, and takes stamped grass for gravel: in the first row the
cause is known, and the maps should find it. The other rows are the crops on which it is most wrong among 96 random
ones. Red pushes towards the error, blue towards the truth. The gradient says which pixels would change the error most
if they changed a little (the grid is the network's own: its strided shortcuts skip pixels); the activations say where
the error comes from, and sum to it. Against the "distribution", all that was predicted is compared with the truth;
against "predicted", only the class that won.
"""

from __future__ import annotations

from pathlib import Path

import torch
from _command_line import parse
from torch import Tensor, nn

import xai_fast as xf
from xai_fast.models.demo import CLASSES, PREPROCESS, photograph
from xai_fast.models.demo.crops import crop
from xai_fast.models.demo.watermark import watermark
from xai_fast.report import Bar, Panel, Row, Scale, figure, overlay, save_png

UNITS = {"gradient": "score per unit of input", "activation": "score"}


def worst_crops(model: nn.Module, n_crops: int, count: int) -> tuple[Tensor, list[int]]:
    """Inputs and true classes of the random crops whose true class is furthest behind the winner."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n_crops) % len(CLASSES)
    inputs = torch.stack([(crop(label, 224, generator) - 0.5) / 0.25 for label in labels.tolist()])
    with torch.inference_mode():
        shares = torch.cat([model(batch) for batch in inputs.split(12)]).softmax(1)
    behind = shares.amax(1) - shares.gather(1, labels[:, None])[:, 0]
    worst = behind.topk(count).indices
    return inputs[worst], labels[worst].tolist()


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    options = parse(__doc__, "error_attribution.png", arguments)
    model, *_ = xf.load("demo")
    stamped = PREPROCESS(watermark(PREPROCESS.view(photograph("grass"))))
    crops, labels = worst_crops(model, *((12, 1) if options.coarse else (96, 2)))
    inputs, true = torch.cat([stamped[None], crops]), [CLASSES.index("grass"), *labels]

    engine = xf.Engine.of(model)
    found = {
        (kind, against): xf.ErrorAttribution(engine, kind=kind, against=against)(inputs, target=true)
        for kind in ("gradient", "activation")
        for against in ("distribution", "predicted")
    }

    with torch.inference_mode():
        taken_for = model(inputs).argmax(1)
    rows = []
    for n, view in enumerate(found["gradient", "predicted"].views(inputs)):
        panels = [Panel(view, CLASSES[true[n]], f"taken for {CLASSES[taken_for[n]]}")]
        for (kind, against), explanation in found.items():
            heatmap = explanation.heatmap()[n].numpy()
            scale = Scale.of(heatmap, signed=True)
            style = "heatmap" if kind == "gradient" else "alpha"
            picture = overlay(view, heatmap, signed=True, scale=scale, style=style)
            said = f"against {against}: {float(explanation.score[n]):.2f}"
            panels.append(Panel(picture, kind, said, Bar(scale, UNITS[kind])))
        rows.append(Row(panels))
    path = save_png(figure(rows, width=320), options.out)
    print(f"{len(true)} wrong answers; wrote {path}")
    return path


if __name__ == "__main__":
    main()
