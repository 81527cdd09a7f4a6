"""Trains the demonstration's network: `python -m xai_fast.models.demo.train --out FILE`, about 100 s on two idle cores.

The network learns what an image shows and, at every position of its class maps, what is there: the uniform
distribution where it is blank. That second part makes hiding neutral and keeps evidence where it was found.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from xai_fast.models.demo.network import DemoNetwork
from xai_fast.models.demo.photos import CLASSES
from xai_fast.models.demo.samples import HOLED, PLAIN, batch

STEPS = 600
SMOOTHING = 0.05
"""What is taken from every certainty and spread evenly, so that logits stay finite."""

LOCALITY = 0.2
"""The weight of keeping class maps as they are outside a hole."""


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
    """What the network is trained to make small, for a batch as `samples.batch` makes it.

    The cross entropy of the images' logits and of every position's, and how far a hole changes the class maps anywhere
    but in the hole. A map that keeps the rest as it was has sums that hiding methods can measure.
    """
    maps = model.class_maps(inputs)
    stride = owners.shape[-1] // maps.shape[-1]
    whole_image, by_position = targets(owners, stride)
    right = functional.cross_entropy(maps.mean((2, 3)), whole_image) + functional.cross_entropy(maps, by_position)
    centred = maps - maps.mean(1, keepdim=True)  # what all classes share means nothing; see `centre_logits`
    kept = functional.avg_pool2d((owners[PLAIN:] == owners[:HOLED]).float(), stride)[:, None]
    return right + LOCALITY * functional.mse_loss(centred[PLAIN:], kept * centred[:HOLED].detach())


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
