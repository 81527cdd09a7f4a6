"""The homework sheet: photographs above the gradients of their losses, for a network and a checkpoint of one's own.

    python examples/saliency_sheet.py --out saliency_sheet.png

Beneath each picture is the absolute gradient of the cross-entropy at its true label, in colour: how strongly a change
in the red, green and blue of each pixel would change the loss. Each map is scaled by its own largest value over all
three channels. Bright are the edges and patches that the network's answer rests on; a map can be bright on the wrong
thing, which is what one looks for.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from _command_line import parse
from _small_cnn import load, read_crops, write_crops

import xai_fast as xf
from xai_fast.report import Panel, Row, figure, save_png

ACROSS = 6


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    options = parse(__doc__, "saliency_sheet.png", arguments)
    model, preprocess, classes = load(options.out.parent, options.coarse)
    with tempfile.TemporaryDirectory() as folder:
        write_crops(Path(folder), per_class=1, seed=1)  # 0_0.jpg to 10_0.jpg: crops that it was not trained on
        inputs, labels = read_crops(Path(folder))

    explanation = xf.Saliency(model)(inputs, target=xf.targets.cross_entropy(labels))
    with torch.inference_mode():
        predicted = model(inputs).argmax(1)

    flat = explanation.values.flatten(1)
    low, high = (bound.view(-1, 1, 1, 1) for bound in (flat.amin(1), flat.amax(1)))
    maps = ((explanation.values - low) / (high - low)).permute(0, 2, 3, 1).numpy()
    views = preprocess.pixels(inputs).permute(0, 2, 3, 1).numpy()
    rows = []
    for start in range(0, len(inputs), ACROSS):
        shown = range(start, min(start + ACROSS, len(inputs)))
        rows.append(Row([Panel(views[n], classes[labels[n]], f"predicted {classes[predicted[n]]}") for n in shown]))
        rows.append(
            Row(
                [
                    Panel(maps[n], f"loss {float(explanation.score[n]):.2g}", f"brightest {float(high[n]):.2g}")
                    for n in shown
                ]
            )
        )
    right = int((predicted == labels).sum())
    path = save_png(figure(rows, width=240), options.out)
    print(f"{right} of {len(labels)} crops recognised; wrote {path}")
    return path


if __name__ == "__main__":
    main()
