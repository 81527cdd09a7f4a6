"""Which parts of a photograph help its class and which hurt: feature ablation by an annotation, and by superpixels.

    python examples/feature_ablation.py --out feature_ablation.png

The annotation picture that comes with the example gives every part of the astronaut a colour of its own; each part is
blurred away in turn, and takes the fall of the score as its value. Red parts help, blue ones hurt. Superpixels, below,
need no annotation: the finer they are, the less each of them matters alone.
"""

from __future__ import annotations

from pathlib import Path

from _command_line import parse
from PIL import Image

import xai_fast as xf
from xai_fast.models.demo import photograph
from xai_fast.report import Bar, Panel, Row, Scale, figure, overlay, save_png

ANNOTATION = Path(__file__).parent / "astronaut_annotation.png"
SUPERPIXELS = (25, 50, 100)


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    options = parse(__doc__, "feature_ablation.png", arguments)
    model, preprocess, classes = xf.load("demo")
    inputs = preprocess(photograph("astronaut"))[None]
    target = classes.index("astronaut")

    picture = Image.open(ANNOTATION)
    parts = xf.segments.annotation(picture, inputs.shape[2:])
    counts = SUPERPIXELS[:1] if options.coarse else SUPERPIXELS
    maps = {"parts of the annotation": parts} | {
        f"{count} superpixels": xf.segments.superpixels(
            inputs, "slic", preprocess=preprocess, n_segments=count, compactness=10
        )
        for count in counts
    }
    engine = xf.Engine.of(model)
    found = {
        title: xf.FeatureAblation(engine, segments=segments, baseline="blur")(inputs, target)
        for title, segments in maps.items()
    }

    first = next(iter(found.values()))
    (view,) = first.views(inputs)
    counted = f"{int(parts.max()) + 1} parts"
    drawn = picture.convert("RGB").resize(view.size, Image.Resampling.NEAREST)
    panels = [Panel(view, "photograph", f"astronaut: {float(first.score[0]):.2f}"), Panel(drawn, "annotation", counted)]
    for title, explanation in found.items():
        values = explanation.heatmap()[0].numpy()
        scale = Scale.of(values, signed=True)
        shown = overlay(view, values, signed=True, scale=scale, style="heatmap")
        # On a grey photograph, whose own colours would be taken for values.
        blended = Image.blend(view.convert("L").convert("RGB"), shown.convert("RGB"), 0.6)
        panels.append(Panel(blended, title, f"{int(explanation.evaluations[0])} model rows", Bar(scale, "score")))
    path = save_png(figure([Row(panels)], width=260), options.out)
    low, high = float(first.values.min()), float(first.values.max())
    print(f"without one of {counted} the score falls by {low:.2f} to {high:.2f}; wrote {path}")
    return path


if __name__ == "__main__":
    main()
