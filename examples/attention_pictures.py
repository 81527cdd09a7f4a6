"""Where a network looks: whatever the class, and as what the class scores say; a convolutional one and a transformer.

    python examples/attention_pictures.py --out attention_pictures.png
    python examples/attention_pictures.py --image cat.jpg --transformer torchvision:vit_b_16

Position-based attention is how strongly a layer fires at each position, class-based attention weights its channels by
what all class scores together say. Beside them stands GradCAM, of the best class alone. For the transformer, which by
default is a small one trained here on the bundled photographs, its attention is shown as well: rolled out over all
layers, with its gradients, and by LeGrad.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

import xai_fast as xf
from xai_fast.images.photo_files import open_photo
from xai_fast.images.preprocess import Preprocess
from xai_fast.methods.base import AbstractMethod
from xai_fast.models.demo import CLASSES, PREPROCESS, photograph, photographs
from xai_fast.report import Panel, Row, figure, save_png

SHOWN = ("cat", "coffee", "rocket")
SIDE, PATCH, WIDTH = 96, 12, 48  # of the small transformer, in pixels and features


class SmallVit(nn.Module):
    """Two of torch's own encoder layers over patches, behind a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.front = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.places = nn.Parameter(0.02 * torch.randn(1, 1 + (SIDE // PATCH) ** 2, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, len(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of (N, 3, 96, 96)."""
        tokens = self.patches(x).flatten(2).mT
        tokens = torch.cat([self.front.expand(len(x), -1, -1), tokens], 1) + self.places
        return self.head(self.encoder(tokens)[:, 0])


def trained(steps: int) -> tuple[nn.Module, Preprocess]:
    """The transformer after so many steps on crops of the photographs, and how it takes a picture."""
    preprocess = Preprocess(resize=SIDE, crop=SIDE, mean=PREPROCESS.mean, std=PREPROCESS.std)
    large = Preprocess(resize=2 * SIDE, crop=2 * SIDE, mean=PREPROCESS.mean, std=PREPROCESS.std)
    wide = torch.stack([large(photo) for photo in photographs()])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SmallVit()
        optimiser = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
        for _ in range(steps):
            which, side = torch.randint(len(wide), (24,)), int(torch.randint(SIDE, 2 * SIDE + 1, ()))
            top, left = (int(torch.randint(2 * SIDE - side + 1, ())) for _ in range(2))
            crops = nn.functional.interpolate(wide[which, :, top : top + side, left : left + side], (SIDE, SIDE))
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(crops), which).backward()
            optimiser.step()
    return model.eval(), preprocess


def of_layers(engine: xf.Engine) -> dict[str, AbstractMethod]:
    """What any network has, by title."""
    return {
        "position-based": xf.PositionAttention(engine),
        "class-based": xf.ClassAttention(engine),
        "GradCAM": xf.GradCAM(engine),
    }


def of_attention(engine: xf.Engine) -> dict[str, AbstractMethod]:
    """What a transformer has beside them."""
    return {
        "attention rollout": xf.AttentionRollout(engine),
        "with gradients": xf.GradientAttentionRollout(engine),
        "LeGrad": xf.LeGrad(engine),
        "AttnLRP": xf.AttnLRP(engine),
    }


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="the convolutional network")
    parser.add_argument("--transformer", help="a vision transformer; by default a small one is trained")
    parser.add_argument("--image", type=Path, nargs="+", help="photographs; by default three of the bundled network's")
    parser.add_argument("--out", type=Path, default=Path("attention_pictures.png"))
    parser.add_argument("--coarse", action="store_true", help="one photograph and a transformer hardly trained")
    options = parser.parse_args(arguments)

    photos = [open_photo(path) for path in options.image] if options.image else [photograph(name) for name in SHOWN]
    photos = photos[:1] if options.coarse else photos
    small = None if options.transformer else (*trained(20 if options.coarse else 600), list(CLASSES))
    networks = {"network": xf.load(options.model), "transformer": small or xf.load(options.transformer)}
    rows = []
    for photo in photos:
        for title, (model, preprocess, classes) in networks.items():
            if preprocess is None:
                parser.error(f"the {title} does not say how a photograph becomes its input")
            engine = xf.Engine(model, preprocess=preprocess, classes=classes)
            methods = of_layers(engine) | (of_attention(engine) if title == "transformer" else {})
            view = preprocess.view(photo)
            maps = [method(preprocess(photo)[None]).panels([view], name)[0][0] for name, method in methods.items()]
            rows.append(Row([Panel(view, title), *maps]))
    path = save_png(figure(rows, width=240), options.out)
    print(f"{len(photos)} photographs; wrote {path}")
    return path


if __name__ == "__main__":
    main()
