"""Networks for tests and benchmarks that answer differently to different images; `python tests/networks.py` trains one.

A freshly initialised network answers every image with nearly the same logits, so whatever an attribution does to it
comes out as rounding noise, and a wrong result looks like a right one. These are awake.
"""

from __future__ import annotations

import copy
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from xai_fast.images.preprocess import Preprocess
from xai_fast.models.demo import CLASSES, photographs
from xai_fast.models.demo import crops as demo_crops
from xai_fast.models.demo import samples as demo_samples
from xai_fast.models.demo import train as demo_train

NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


@lru_cache
def _photos(size: int) -> Tensor:
    preprocess = Preprocess(resize=size, crop=size)
    upright = torch.stack([preprocess(photo) for photo in photographs()])
    return torch.cat([upright, upright.flip(3)])


def photos(n: int = 2, size: int = 64) -> Tensor:
    """Real photographs, ImageNet-normalised: (n, 3, size, size), n up to 24 (from the 13th on, mirrored)."""
    if not 1 <= n <= 24:
        raise ValueError(f"`n` is {n}; there are 1 to 24 photos")
    return _photos(size)[:n].clone()


def awakened(name: str, seed: int = 0, **options: object) -> nn.Module:
    """A torchvision network with random weights that tells photos apart, in eval mode and float32; a fresh copy.

    Args:
        name: as in `torchvision.models`.
        seed: of all draws; the global generator is left alone.
        options: for torchvision's builder, such as `num_classes=10` or a ViT's `image_size=64`.
    """
    return copy.deepcopy(_awakened(name, seed, tuple(sorted(options.items()))))


@lru_cache(maxsize=4)  # a VGG alone is half a gigabyte
def _awakened(name: str, seed: int, options: tuple[tuple[str, object], ...]) -> nn.Module:
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = torchvision.models.get_model(name, weights=None, **dict(options))
        return awaken(model, photos(12, getattr(model, "image_size", 96)))


@torch.no_grad()
def awaken(model: nn.Module, inputs: Tensor) -> nn.Module:
    """Draw biases and affine parameters, and set statistics and scales by a pass over real inputs; in place.

    Batch normalisation takes its running statistics from that pass. Where a network has none, every convolution and
    linear layer gets what folded batch normalisation would give it: each channel of its output has mean and scale of
    order one over these inputs, so that neither signal nor contrast between images dies with depth. Linear layers are
    treated so in both cases, because the features before a head are much alike for all images.

    Draws from the global generator: the caller seeds it.
    """
    _draw(model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all passes, here one
    plain = (nn.Linear,) if norms else (nn.Linear, nn.Conv2d)
    handles = [m.register_forward_hook(_standardise) for m in model.modules() if isinstance(m, plain)]
    model.eval()
    for norm in norms:
        norm.train()
    model(inputs)
    for handle in handles:
        handle.remove()
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def _draw(model: nn.Module) -> None:
    """Draw what networks are initialised without: affine parameters, branches scaled to nothing, uniform attention."""
    for module in model.modules():
        if isinstance(module, NORMS) and module.weight is not None:
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.3)
        if isinstance(module, nn.Linear) and not module.weight.any():  # a ViT's head
            module.weight.normal_(0, module.in_features**-0.5)
    for name, parameter in model.named_parameters():
        leaf = name.rpartition(".")[2]
        if leaf in ("layer_scale", "class_token", "in_proj_weight"):
            parameter.normal_(0, 2 / parameter.shape[-1] ** 0.5 if leaf == "in_proj_weight" else 0.5)


def _standardise(module: nn.Linear | nn.Conv2d, _: object, output: Tensor) -> Tensor:
    """A forward hook that gives each output channel a drawn mean and scale of order one, by changing the weights."""
    channel = 1 if isinstance(module, nn.Conv2d) else output.ndim - 1
    others = [axis for axis in range(output.ndim) if axis != channel]
    mean, std = output.mean(others), output.std(others).clamp_min(1e-6)
    scale = torch.empty_like(std).uniform_(0.5, 1.5) / std
    shift = torch.empty_like(mean).normal_(0, 0.3) - mean * scale
    if module.bias is None:  # without one the mean has to stay
        shift = torch.zeros_like(shift)
    else:
        module.bias.mul_(scale).add_(shift)
    module.weight.mul_(scale.view(-1, *[1] * (module.weight.ndim - 1)))
    shape = [-1 if axis == channel else 1 for axis in range(output.ndim)]
    return output * scale.view(shape) + shift.view(shape)


class OddNetwork(nn.Module):
    """What tidy networks hide: two input channels, oblong kernels, dilation, groups, a functional ReLU, a dict output.

    Takes (N, 2, H, W) with H and W at least 16, odd ones too; returns {"logits": (N, 5), "aux": (N, 3)}.
    """

    def __init__(self) -> None:
        super().__init__()
        self.oblong = nn.Conv2d(2, 6, (3, 5), padding=(1, 2))
        self.norm = nn.BatchNorm2d(6)
        self.dilated = nn.Conv2d(6, 8, 3, stride=(2, 1), padding=(2, 1), dilation=2)
        self.grouped = nn.Conv2d(8, 8, (2, 3), groups=2)
        self.head = nn.Linear(8 * 2 * 3, 5)
        self.aux = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        early = functional.relu(self.norm(self.oblong(x)))
        x = functional.max_pool2d(functional.relu(self.dilated(early)), 3, 2, 1)
        x = functional.adaptive_avg_pool2d(torch.tanh(self.grouped(x)), (2, 3))
        return {"logits": self.head(x.flatten(1)), "aux": self.aux(early.mean((2, 3)))}


@lru_cache
def _odd_network(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return awaken(OddNetwork(), photos(12, 48)[:, :2, :37, :29])


def odd_network(seed: int = 0) -> nn.Module:
    """An `OddNetwork`, awake and in eval mode; a fresh copy."""
    return copy.deepcopy(_odd_network(seed))


RESNET_STEPS = 210


def trained_resnet18() -> nn.Module:
    """A torchvision ResNet-18 trained on the demonstration's classes and inputs, in eval mode; from the cache if there.

    The cache is the folder XAI_FAST_CACHE, else xai_fast in the user's cache folder. A file is valid for the
    training code that made it.
    """
    import torchvision
    from safetensors.torch import load_file, save_file

    path = cache_folder() / f"resnet18-{_code_version()}.safetensors"
    if not path.exists():
        state = _train_resnet18().state_dict()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside and renamed, so that a reader sees a whole file or none, whoever else is training.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / path.name
            save_file(state, part)
            part.replace(path)
    model = torchvision.models.get_model("resnet18", weights=None, num_classes=len(CLASSES))
    model.load_state_dict(load_file(path))
    return model.eval()


def cache_folder() -> Path:
    """Where trained networks are kept, outside the source tree."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("XAI_FAST_CACHE") or user / "xai_fast")


def _code_version() -> str:
    files = [Path(str(m.__file__)) for m in (demo_crops, demo_samples, demo_train)] + [Path(__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _train_resnet18(say: Callable[[str], object] = print) -> nn.Module:
    import torchvision

    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torchvision.models.get_model("resnet18", weights=None, num_classes=len(CLASSES))
    model = model.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=RESNET_STEPS)
    start = time.perf_counter()
    for step in range(RESNET_STEPS):
        inputs, owners = demo_samples.batch(generator)
        distribution, _ = demo_train.targets(owners, stride=demo_samples.SIDE)
        loss = functional.cross_entropy(model(inputs.contiguous(memory_format=torch.channels_last)), distribution)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 25 == 0 or step == RESNET_STEPS - 1:
            say(f"resnet18: step {step:3d}  loss {loss.item():.3f}  {time.perf_counter() - start:.0f} s")
    return model.to(memory_format=torch.contiguous_format).eval()


@torch.inference_mode()
def accuracy(model: nn.Module, n: int = 240, side: int = 112, seed: int = 77) -> float:
    """Share of right answers to n fresh crops of the demonstration's photographs."""
    generator = torch.Generator().manual_seed(seed)
    right = [index % len(CLASSES) for index in range(n)]
    inputs = torch.stack([(demo_crops.crop(index, side, generator) - 0.5) / 0.25 for index in right])
    answers = torch.cat([model(part).argmax(1) for part in inputs.split(32)])
    return (answers == torch.tensor(right)).float().mean().item()


if __name__ == "__main__":
    print(f"accuracy on fresh crops: {accuracy(trained_resnet18()):.3f}")
