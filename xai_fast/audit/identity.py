"""Which model it is, in a text that is the same in every process: every weight, and how its modules print."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.core.copies import unwrapped


def identity(model: Any) -> str:
    """The SHA-256 of a model's parameters, buffers and structure; of a plain callable, its name alone."""
    if not isinstance(model, nn.Module):
        return f"callable {getattr(model, '__module__', '')}.{getattr(model, '__qualname__', type(model).__qualname__)}"
    inside, digest = unwrapped(model), hashlib.sha256()
    digest.update(repr(inside).encode())
    for name, module in inside.named_modules():
        digest.update(f"{name}: {type(module).__module__}.{type(module).__qualname__}, {module.training}".encode())
    for kind, named in (("parameter", inside.named_parameters()), ("buffer", inside.named_buffers())):
        for name, tensor in named:
            digest.update(f"{kind} {name}: {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
