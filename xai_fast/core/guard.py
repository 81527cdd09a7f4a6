"""Leave everything as found, also after a failure: the model's state, the random generators, torch's global flags."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


@contextmanager
def untouched(*, deterministic: bool = False) -> Iterator[None]:
    """Runs a block in a mode of our own and puts the caller's back: RNG states, autocast, grad mode, global flags.

    Inside, autocast is off (the model's own dtype is what "exact" means) and inference mode is off (its tensors
    could not take part in a backward pass). A model that draws random numbers does so from the caller's state,
    which is put back afterwards.

    Args:
        deterministic: run with `torch.use_deterministic_algorithms(True)`.
    """
    with ExitStack() as stack:
        for restore in _restorers():
            stack.callback(restore)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.autocast("cpu", enabled=False))
        if torch.cuda.is_available():
            stack.enter_context(torch.autocast("cuda", enabled=False))
        if deterministic:
            torch.use_deterministic_algorithms(True)
        yield


def _restorers() -> list[Callable[[], Any]]:
    """One function per piece of global state, each putting back what it is now."""
    python, numpy, cpu = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    grad, dtype, threads = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    strict = torch.get_deterministic_debug_mode()
    restorers: list[Callable[[], Any]] = [
        lambda: random.setstate(python),
        lambda: np.random.set_state(numpy),
        lambda: torch.set_rng_state(cpu),
        lambda: torch.set_grad_enabled(grad),
        lambda: torch.set_default_dtype(dtype),
        # Setting the thread count re-creates the pool, so it is done only where something changed it.
        lambda: torch.get_num_threads() == threads or torch.set_num_threads(threads),
        lambda: torch.set_deterministic_debug_mode(strict),
    ]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states = torch.cuda.get_rng_state_all()
        restorers.append(lambda: torch.cuda.set_rng_state_all(states))
    return restorers


@contextmanager
def own_model(model: nn.Module) -> Iterator[None]:
    """Runs the caller's own model (what cannot be copied) in eval mode; puts back its flags, buffers and gradients."""
    training = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    buffers = [(buffer, buffer._version, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        for module, _ in training:
            module.training = False
        yield
    finally:
        for module, flag in training:
            module.training = flag
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, version, kept in buffers:
                if buffer._version != version:
                    buffer.copy_(kept)
