"""The homework sheet for LIME: photographs above the regions that speak for their true classes, and against them.

    python examples/lime_sheet.py --out lime_sheet.png

A network of one's own, explained by its raw logits at the true label: SLIC superpixels (100 segments, compactness 1,
sigma 1), and of them the 11 that the lasso's path keeps, where their weight is at least 0.05. Green regions raise the
logit of the true class, red ones lower it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from _command_line import parse
from _regions import regions
from _small_cnn import load, read_crops, write_crops

import xai_fast as xf
from xai_fast.report import Panel, Row, figure, save_png

ACROSS = 6
FEATURES, LEAST = 11, 0.05


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    options = parse(__doc__, "lime_sheet.png", arguments)
    model, preprocess, classes = load(options.out.parent, options.coarse)
    with tempfile.TemporaryDirectory() as folder:
        write_crops(Path(folder), per_class=1, seed=1)  # 0_0.jpg to 10_0.jpg: crops that it was not trained on
        inputs, labels = read_crops(Path(folder))
    if options.coarse:
        inputs, labels = inputs[:ACROSS], labels[:ACROSS]

    engine = xf.Engine(model, preprocess=preprocess, classes=classes)
    samples = 200 if options.coarse else 1000
    explanation = xf.Lime(engine, segments="slic", top_k=FEATURES, n_samples=samples)(inputs, target=labels)
    views = explanation.views(inputs)
    maps = explanation.heatmap().numpy()
    rows = []
    for start in range(0, len(inputs), ACROSS):
        above, below = [], []
        for n in range(start, min(start + ACROSS, len(inputs))):
            above.append(Panel(views[n], classes[labels[n]], f"logit {float(explanation.score[n]):.2f}"))
            shown = regions(views[n], maps[n], count=FEATURES, least=LEAST)
            below.append(Panel(shown, f"R² {float(explanation.fit[n]):.2f}"))
        rows += [Row(above), Row(below)]
    path = save_png(figure(rows, width=240), options.out)
    asked, fit = int(explanation.evaluations.sum()), float(explanation.fit.median())
    print(f"{len(inputs)} crops explained by {asked} model rows, median R² {fit:.2f}; wrote {path}")
    return path


if __name__ == "__main__":
    main()
