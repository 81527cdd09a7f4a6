"""Occlusion with several windows and strides on one photograph, and with one colour channel hidden at a time.

    python examples/occlusion.py --out occlusion.png
    python examples/occlusion.py --image cat.jpg --model torchvision:resnet50

Red parts speak for the class: hiding them makes its score fall. Blue parts speak against it. Squares share one scale.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import xai_fast as xf
from xai_fast.images.photo_files import open_photo
from xai_fast.models.demo import photograph
from xai_fast.report import Bar, Panel, Row, Scale, figure, overlay, save_png

SETTINGS = ((15, 8), (32, 16), (56, 28), ((16, 56), (8, 28)))  # (window, stride) in pixels: squares, then a wide box


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--image", type=Path, help="a photograph; by default the bundled network's cat")
    parser.add_argument("--target", help="a class by name or number; by default the predicted one")
    parser.add_argument("--out", type=Path, default=Path("occlusion.png"))
    parser.add_argument("--coarse", action="store_true", help="larger strides, for a quick look")
    options = parser.parse_args(arguments)

    model, preprocess, classes = xf.load(options.model)
    if preprocess is None:
        parser.error(f"{options.model} does not say how a photograph becomes its input")
    photo = open_photo(options.image) if options.image else photograph("cat")
    inputs, view = preprocess(photo)[None], preprocess.view(photo)
    target = None if options.target is None else xf.targets.class_named(options.target, classes)

    engine = xf.Engine.of(model)
    factor = 4 if options.coarse else 1
    found = []
    for window, stride in SETTINGS:
        step = stride * factor if isinstance(stride, int) else tuple(s * factor for s in stride)
        found.append(xf.Occlusion(engine, window=window, stride=step)(inputs, target))
    # A window with a channel extent of 1 hides one channel at a time: the map has a channel axis.
    by_channel = xf.Occlusion(engine, window=(1, 32, 32), stride=(1, 16 * factor, 16 * factor))(inputs, target)

    scale = Scale.of([explanation.heatmap()[0].numpy() for explanation in found], signed=True)
    label = found[0].target_names(0)[0]
    panels = [Panel(view, "photograph", f"{label}: {float(found[0].score[0]):.2f}")]
    for explanation, (window, stride) in zip(found, SETTINGS, strict=True):
        picture = overlay(view, explanation.heatmap()[0].numpy(), signed=True, scale=scale, style="opacity")
        rows = int(explanation.evaluations[0])
        panels.append(Panel(picture, f"window {window}", f"stride {stride}, {rows} model rows", Bar(scale, "score")))
    channels = by_channel.values[0].numpy()
    channel_scale = Scale.of(channels.sum(0), signed=True)
    second = [
        Panel(
            overlay(view, channel, signed=True, scale=channel_scale, style="opacity"),
            f"{name} channel alone",
            "window (1, 32, 32)",
            Bar(channel_scale, "score"),
        )
        for name, channel in zip(("red", "green", "blue"), channels, strict=False)
    ]
    path = save_png(figure([Row(panels), Row([None, *second])]), options.out)
    print(f"{label}: {sum(int(e.evaluations[0]) for e in [*found, by_channel])} model rows; wrote {path}")
    return path


if __name__ == "__main__":
    main()
