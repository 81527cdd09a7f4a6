"""Small models that see what is done to them: how many rows came, when to fail, and what must be as it was before."""

from __future__ import annotations

import random
import threading
from functools import cache

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional


class Record:
    """What a `Watch` saw; copies of the model share it.

    Attributes:
        chunks: rows of each forward.
        react: called with each batch before it passes on; may raise.
    """

    def __init__(self):
        self.chunks, self.react = [], None

    def __deepcopy__(self, memo):
        return self

    @property
    def rows(self):
        return sum(self.chunks)


class Watch(nn.Module):
    """Passes its input on and writes down how many rows it had; copies write into the same record."""

    def __init__(self):
        super().__init__()
        self.record = Record()

    def forward(self, x):
        if not isinstance(x, fx.Proxy):
            self.record.chunks.append(len(x))
            if self.record.react is not None:
                self.record.react(x)
        return x


class Attends(nn.Module):
    """Two blocks of attention among the positions of a map (N, 6, *s), of two heads each; one is fused, one is not."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Block(fused=True), Block(fused=False)
        generator = torch.Generator().manual_seed(8)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(
                    torch.randn(parameter.shape, generator=generator) * (0.7 if parameter.ndim > 1 else 0.3)
                )

    def forward(self, x):
        return self.second(self.first(x.flatten(2).mT)).mT.unflatten(2, x.shape[2:])


class Block(nn.Module):
    """Tokens (N, T, 6) and what two heads of attention add to them."""

    def __init__(self, fused):
        super().__init__()
        self.parts, self.fused = nn.Linear(6, 18), fused

    def forward(self, tokens):
        q, k, v = self.parts(tokens).unflatten(2, (3, 2, 3)).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.mT * 3**-0.5).softmax(-1) @ v
        return tokens + mixed.transpose(1, 2).flatten(2)


class Small(nn.Module):
    """Two convolutions with batch normalisation, a residual, pooling to two cells per axis, five classes; awake.

    In tests of methods that need attention there are two layers of it before the pooling (`Small.attends`).

    Args:
        axes: 1 for signals, 2 for images, 3 for volumes.
        channels: of the input.
        seed: of all weights.
        inplace: ReLU as a module that writes into its input, the first thing being one on the input itself.
        lock: whether the model holds what cannot be copied.
    """

    attends = False

    def __init__(self, axes=2, channels=3, seed=0, inplace=False, lock=False, dropout=0.0):
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1]
        self.watch = Watch()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem, self.stem_norm = conv(channels, 6, 3, padding=1, bias=False), norm(6)
            self.pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[axes - 1](2)
            self.body, self.body_norm = conv(6, 6, 3, padding=1), norm(6)
            self.inplace = nn.ReLU(inplace=True) if inplace else None
            self.dropout = nn.Dropout(dropout)
            self.cells = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[axes - 1](2)
            self.head = nn.Linear(6 * 2**axes, 5)
            self.mixing = Attends() if self.attends else nn.Identity()
            with torch.no_grad():
                for layer in (self.stem_norm, self.body_norm):
                    layer.running_mean.normal_(0, 0.3)
                    layer.running_var.uniform_(0.5, 2)
                    layer.weight.uniform_(0.5, 1.5)
                    layer.bias.normal_(0, 0.3)
        self.eval()
        self._awaken(signals(16, (channels, 9, 7, 8)[: axes + 1], seed=2))
        if lock:
            self.lock = threading.Lock()

    @torch.no_grad()
    def _awaken(self, inputs):
        """Every class gets its turn: each score has mean 0 and scale 1 over these inputs."""
        inputs = inputs.to(self.head.weight.dtype)
        scores = self(inputs.clone())
        self.head.weight.div_(scores.std(0)[:, None])
        self.head.bias.sub_(scores.mean(0)).div_(scores.std(0))
        self.record.chunks.clear()

    @property
    def record(self):
        return self.watch.record

    def forward(self, x):
        x = self.watch(x)
        relu = self.inplace or functional.relu
        if self.inplace is not None:
            x = self.inplace(x)
        x = self.pool(relu(self.stem_norm(self.stem(x))))
        x = self.mixing(relu(self.body_norm(self.body(x)) + x))
        return self.head(self.dropout(self.cells(x).flatten(1)))


@cache
def _shared(dtype, axes, attends):
    model = Small(axes=axes).to(dtype)
    return model, model_state(model)


def shared(dtype=torch.float32, axes=2):
    """A model for tests that leave it as it is: what was prepared for it serves them all. Its record starts empty."""
    model, state = _shared(dtype, axes, Small.attends)
    assert model_state(model) == state, "a test has changed the model that it shares with others"
    model.record.chunks.clear()
    model.record.react = None
    return model


def signals(n=3, shape=(3, 13, 11), dtype=torch.float32, seed=1):
    """(n, *shape) of standard normal numbers, the same for the same arguments."""
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def model_state(model):
    """Everything about a module that a visitor could leave changed, as (name, identity, contents) facts."""
    facts = []
    for name, module in model.named_modules():
        facts.append((name, "training", module.training))
        for key, value in module.__dict__.items():
            if "hooks" in key:
                facts.append((name, key, [(k, id(v)) for k, v in value.items()]))
            elif key not in ("_parameters", "_buffers", "_modules", "training"):
                facts.append((name, key, id(value)))
        for kind in ("_parameters", "_buffers", "_modules"):
            facts.append((name, kind, [(key, id(value)) for key, value in getattr(module, kind).items()]))
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        contents = tensor.detach().clone()
        grad = None if tensor.grad is None else (id(tensor.grad), tensor.grad.tolist())
        facts.append((name, tensor.requires_grad, tensor.dtype, tensor.stride(), contents.tolist(), grad))
    return facts


def global_state():
    """The random generators and torch's global modes and flags."""
    kind, keys, position, gauss, cached = np.random.get_state()
    return {
        "torch rng": torch.get_rng_state().tolist(),
        "numpy rng": (kind, keys.tolist(), position, gauss, cached),
        "random": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.get_deterministic_debug_mode()),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.enabled),
        "mkldnn": torch.backends.mkldnn.enabled,
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "anomaly": torch.is_anomaly_enabled(),
        "precision": torch.get_float32_matmul_precision(),
    }
