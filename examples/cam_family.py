"""The class activation maps side by side on one photograph, and one of them from shallow layers to the deepest.

    python examples/cam_family.py --out cam_family.png
    python examples/cam_family.py --image cat.jpg --model torchvision:resnet50

First the nine of torch-cam, then the relatives: without gradients, denoised, guided. GradCAM++ takes powers of the
first derivative for the higher ones, which is exact for the exponential of a score behind piecewise linear layers. The
last row is LayerCAM at the deepest map of every size: shallow layers see edges, deep ones see the object.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import xai_fast as xf
from xai_fast.images.photo_files import open_photo
from xai_fast.methods.base import AbstractMethod
from xai_fast.methods.cam.scales import scales_of
from xai_fast.models.demo import photograph
from xai_fast.report import Panel, Row, figure, save_png

FIRST = ("CAM", "GradCAM", "GradCAMPlusPlus", "SmoothGradCAMPlusPlus", "XGradCAM", "LayerCAM", "ScoreCAM")
SAMPLED = ("SSCAM", "ISCAM")  # score as many noisy or partial masks per channel as they are told to
ACROSS = 5  # maps beside each photograph


def relatives(engine: xf.Engine) -> dict[str, AbstractMethod]:
    """What the tutorials show beside the nine, by title."""
    return {
        "AblationCAM": xf.AblationCAM(engine),
        "GradCAM, aug_smooth": xf.GradCAM(engine, aug_smooth=True),
        "GradCAM, eigen_smooth": xf.GradCAM(engine, eigen_smooth=True),
        "GuidedGradCAM": xf.GuidedGradCAM(engine),
    }


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--image", type=Path, help="a photograph; by default the bundled network's cat")
    parser.add_argument("--out", type=Path, default=Path("cam_family.png"))
    parser.add_argument("--coarse", action="store_true", help="without the slowest ones, for a quick look")
    options = parser.parse_args(arguments)

    model, preprocess, _ = xf.load(options.model)
    if preprocess is None:
        parser.error(f"{options.model} does not say how a photograph becomes its input")
    photo = open_photo(options.image) if options.image else photograph("cat")
    inputs, view = preprocess(photo)[None], preprocess.view(photo)
    engine = xf.Engine.of(model)

    nine: dict[str, AbstractMethod] = {name: xf.methods()[name].cls(engine) for name in FIRST}
    if not options.coarse:
        nine |= {name: xf.methods()[name].cls(engine, n_samples=4) for name in SAMPLED}
    depths = {f"LayerCAM at {name}": xf.LayerCAM(engine, layer=name) for name in scales_of(engine, inputs)}

    rows, used = [], 0
    for methods in (nine, relatives(engine), depths):
        maps: list[Panel] = []
        for title, method in methods.items():
            found = method(inputs)
            used += int(found.evaluations.sum())
            maps += found.panels([view], title)[0]
        for start in range(0, len(maps), ACROSS):
            rows.append(Row([Panel(view, "photograph"), *maps[start : start + ACROSS]]))
    path = save_png(figure(rows, width=300), options.out)
    print(f"{used} model rows; wrote {path}")
    return path


if __name__ == "__main__":
    main()
