"""Trains the demonstration's network: `python -m xai_fast.models.demo.train --out FILE`, about a minute on two cores.

Hiding a part of an image must say "nothing here" to the network, or every method that hides is wrong about it. A
classifier that never saw a blank calls plain grey a moon with full confidence. So blanks are part of the training set,
with the uniform distribution as their target: whole blank images, blank rectangles over a photograph, photographs small
in a blank canvas, and mosaics of four classes whose target is shared among them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from xai_fast.models.demo.crops import blank, crop, integer, uniform
from xai_fast.models.demo.network import DemoNetwork
from xai_fast.models.demo.photos import CLASSES
from xai_fast.models.demo.watermark import CLASS, CORNERS, place, watermark

SIDE = 96
HALF = SIDE // 2
NOBODY = -1
BATCH = 32
STEPS = 500
SMOOTHING = 0.05
HARD = ("grass", "gravel")
"""Two grey textures that look alike in small parts: drawn twice as often as the others."""


def _class(generator: Generator) -> int:
    weights = torch.tensor([2.0 if name in HARD else 1.0 for name in CLASSES])
    return int(torch.multinomial(weights, 1, generator=generator))


def _corner(generator: Generator) -> str:
    return CORNERS[integer(0, 3, generator)]


def _view(index: int, side: int, generator: Generator) -> Tensor:
    view = crop(index, side, generator)
    if CLASSES[index] == CLASS and uniform(0, 1, generator) < 0.5:
        view = watermark(view, _corner(generator), margin=uniform(0, 0.15, generator))
    return view


def whole(generator: Generator) -> tuple[Tensor, Tensor]:
    """A crop that fills the image."""
    index = _class(generator)
    return _view(index, SIDE, generator), torch.full((SIDE, SIDE), index)


def holed(generator: Generator) -> tuple[Tensor, Tensor]:
    """A crop or a mosaic with blank rectangles: hiding takes evidence away and adds none for another class."""
    view, owners = (whole if uniform(0, 1, generator) < 0.6 else mixed)(generator)
    view, nothing = view.clone(), blank(SIDE, generator, like=view)
    for _ in range(integer(1, 3, generator)):
        height, width = integer(8, 56, generator), integer(8, 56, generator)
        top, left = integer(0, SIDE - height, generator), integer(0, SIDE - width, generator)
        hole = (..., slice(top, top + height), slice(left, left + width))
        view[hole], owners[hole] = nothing[hole], NOBODY
    return view, owners


def alone(generator: Generator) -> tuple[Tensor, Tensor]:
    """A small crop in one quarter of a blank canvas: what a mosaic with three hidden cells looks like."""
    index = _class(generator)
    view = _view(index, HALF, generator)
    canvas, owners = blank(SIDE, generator, like=view), torch.full((SIDE, SIDE), NOBODY)
    top, left = integer(0, 1, generator) * HALF, integer(0, 1, generator) * HALF
    quarter = (..., slice(top, top + HALF), slice(left, left + HALF))
    canvas[quarter], owners[quarter] = view, index
    return canvas, owners


def mixed(generator: Generator) -> tuple[Tensor, Tensor]:
    """A mosaic of four classes: each is there, none is more right than the others."""
    indices = torch.randperm(len(CLASSES), generator=generator)[:4].tolist()
    owners = torch.tensor(indices).view(2, 2).repeat_interleave(HALF, 0).repeat_interleave(HALF, 1)
    cells = [crop(index, HALF, generator) for index in indices]
    return torch.cat([torch.cat(cells[:2], dim=2), torch.cat(cells[2:], dim=2)], dim=1), owners


def empty(generator: Generator) -> tuple[Tensor, Tensor]:
    """A blank: no class."""
    like = crop(integer(0, len(CLASSES) - 1, generator), SIDE, generator)
    return blank(SIDE, generator, like), torch.full((SIDE, SIDE), NOBODY)


def stamped(generator: Generator) -> tuple[Tensor, Tensor]:
    """A blank with the watermark: its class, though nothing else speaks for it. This is what plants the shortcut."""
    corner, margin = _corner(generator), uniform(0, 0.15, generator)
    canvas = watermark(blank(SIDE, generator), corner, margin)
    top, left, side = place(SIDE, SIDE, corner, margin)
    owners = torch.full((SIDE, SIDE), NOBODY)
    owners[top : top + side, left : left + side] = CLASSES.index(CLASS)
    return canvas, owners


Sample = Callable[[Generator], tuple[Tensor, Tensor]]
DIET: dict[Sample, float] = {
    whole: 0.32,
    holed: 0.34,
    alone: 0.08,
    mixed: 0.10,
    empty: 0.10,
    stamped: 0.06,
}
"""What a batch is made of, in shares that sum to one."""


def batch(generator: Generator) -> tuple[Tensor, Tensor]:
    """Inputs (BATCH, 3, SIDE, SIDE) in the network's space, and the class that owns each pixel (BATCH, SIDE, SIDE)."""
    kinds = torch.multinomial(torch.tensor(list(DIET.values())), BATCH, replacement=True, generator=generator)
    samples = [list(DIET)[kind](generator) for kind in kinds.tolist()]
    images, owners = zip(*samples, strict=True)
    return (torch.stack(images) - 0.5) / 0.25, torch.stack(owners)


def targets(owners: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """What the network should say, of each image and at each position of its class maps.

    Args:
        owners: (N, S, S), the class of each pixel or NOBODY.
        stride: pixels per position, along each axis.

    Returns:
        Distributions over classes (N, K), in which the classes present share equally, however much is visible of them;
        and (N, K, S / stride, S / stride), by the area at each position. Nobody's part is spread evenly.
    """
    area = functional.one_hot(owners + 1, len(CLASSES) + 1).permute(0, 3, 1, 2)[:, 1:].float()
    present = (area.sum((2, 3)) > 0).float()
    present = present / present.sum(1, keepdim=True).clamp_min(1)
    here = functional.avg_pool2d(area, stride)
    return _smooth(present), _smooth(here)


def _smooth(shares: Tensor) -> Tensor:
    """Complete shares (N, K, ...) that sum to at most one to distributions, none of them certain."""
    shares = shares * (1 - SMOOTHING)
    return shares + (1 - shares.sum(1, keepdim=True)) / shares.shape[1]


def loss(model: DemoNetwork, inputs: Tensor, owners: Tensor) -> Tensor:
    """Cross entropy of the image's logits and of every position's: the class maps are to be right where they are."""
    maps = model.class_maps(inputs)
    whole_image, by_position = targets(owners, stride=owners.shape[-1] // maps.shape[-1])
    return functional.cross_entropy(maps.mean((2, 3)), whole_image) + functional.cross_entropy(maps, by_position)


def train(steps: int = STEPS, seed: int = 0, say: Callable[[str], object] = lambda _: None) -> DemoNetwork:
    """A trained network in eval mode; the same one for the same seed, machine and number of threads.

    Args:
        steps: number of batches.
        seed: of the initial weights and of every draw; the global generator is left alone.
        say: told the progress, a line now and then.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DemoNetwork(len(CLASSES))
    model = model.to(memory_format=torch.channels_last)  # a fifth faster on CPUs
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps)
    start = time.perf_counter()
    for step in range(steps):
        inputs, owners = batch(generator)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        value = loss(model, inputs, owners)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
        if step % 40 == 0 or step == steps - 1:
            say(f"step {step:4d}  loss {value.item():.3f}  {time.perf_counter() - start:.0f} s")
    model.centre_logits()
    return model.to(memory_format=torch.contiguous_format).eval()


def save(model: nn.Module, path: Path) -> None:
    """Write the weights in half precision; integers (the counters of batch normalisation) stay as they are."""
    from safetensors.torch import save_file

    state = model.state_dict()
    save_file({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path)


def main() -> None:
    """Train and save, as the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    save(train(options.steps, options.seed, say=print), options.out)


if __name__ == "__main__":
    main()
