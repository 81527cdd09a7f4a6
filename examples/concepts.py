"""Which few concepts a network sees in photographs, where, and which classes each of them speaks for.

    python examples/concepts.py --out concepts.png
    python examples/concepts.py --model torchvision:resnet50 --image street.jpg dog.jpg

Deep feature factorization (Collins et al. 2018): what a late layer returns for all pictures together is divided into
a few concepts, so that one colour is one concept in every picture. Below them stand the classes whose
scores a concept raises most.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import xai_fast as xf
from xai_fast.images.photo_files import open_photo
from xai_fast.models.demo import photograph
from xai_fast.report import save_png

SHOWN = ("cat", "coffee", "astronaut")


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--image", type=Path, nargs="+", help="photographs; by default three of the bundled network's")
    parser.add_argument("--concepts", type=int, default=5, help="how many")
    parser.add_argument("--classes", type=int, default=2, help="how many are named for each")
    parser.add_argument("--out", type=Path, default=Path("concepts.png"))
    parser.add_argument("--coarse", action="store_true", help="three concepts, for a quick look")
    options = parser.parse_args(arguments)

    model, preprocess, classes = xf.load(options.model)
    if preprocess is None:
        parser.error(f"{options.model} does not say how a photograph becomes its input")
    photos = [open_photo(path) for path in options.image] if options.image else [photograph(name) for name in SHOWN]
    inputs = torch.stack([preprocess(photo) for photo in photos])
    method = xf.DeepFeatureFactorization(
        xf.Engine(model, preprocess=preprocess, classes=classes),
        n_concepts=3 if options.coarse else options.concepts,
        top_k=options.classes,
    )
    found = method(inputs)
    path = save_png(found.figure([preprocess.view(photo) for photo in photos]), options.out)
    print(f"{found.values.shape[1]} concepts in {len(photos)} photographs; wrote {path}")
    return path


if __name__ == "__main__":
    main()
