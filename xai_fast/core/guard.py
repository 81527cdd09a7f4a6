"""Leave everything as found, also after a failure: the model's state, the random generators, torch's global flags."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from .devices import own_on_cpu
from .draws import alone, undrawn
from .uncompiled import running_plainly

# A fork does not have the threads of its parent's OpenMP, and GNU's waits for them for ever, in plain torch too, unless
# it is asked for a single one. `torch.utils.data.DataLoader` asks its workers for no more, either.
_several_threads_ran = False


@contextmanager
def untouched(*, deterministic: bool = False) -> Iterator[None]:
    """Runs a block in a mode of our own and puts the caller's back: RNG states, autocast, grad mode, global flags.

    Inside, autocast is off (the model's own dtype is what "exact" means) and inference mode is off (its tensors
    could not take part in a backward pass). A model that draws random numbers does so from the caller's state,
    which is put back afterwards. What other threads draw meanwhile stays drawn, unless the model draws from the same
    generator, of which there is one per process. A fork of the process begins with
    a single thread (`torch.set_num_threads`).

    Args:
        deterministic: run with `torch.use_deterministic_algorithms(True)`.
    """
    global _several_threads_ran
    grad, dtype, threads = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    _several_threads_ran |= threads > 1
    by_itself = alone()
    with ExitStack() as stack:
        stack.enter_context(undrawn())
        stack.enter_context(own_on_cpu())
        stack.callback(lambda: torch.set_grad_enabled(grad))
        # One per process: where other threads run, it is theirs to change.
        stack.callback(lambda: torch.set_default_dtype(dtype) if by_itself and alone() else None)
        # Setting the thread count re-creates the pool, so it is done only where something changed it.
        stack.callback(lambda: torch.get_num_threads() == threads or torch.set_num_threads(threads))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.autocast("cpu", enabled=False))
        if torch.cuda.is_available():
            stack.enter_context(torch.autocast("cuda", enabled=False))
        stack.enter_context(_STRICTNESS.on() if deterministic else _STRICTNESS.kept())
        yield


class _Strictness:
    """Torch's deterministic mode, of which there is one per process: the last call that wants it puts it back."""

    def __init__(self) -> None:
        self._lock, self._wanting, self._found = threading.Lock(), 0, 0

    @contextmanager
    def on(self) -> Iterator[None]:
        """Deterministic algorithms, in every thread, as long as one call wants them."""
        with self._lock:
            if self._wanting == 0:
                self._found = torch.get_deterministic_debug_mode()
                torch.use_deterministic_algorithms(True)
            self._wanting += 1
        try:
            yield
        finally:
            with self._lock:
                self._wanting -= 1
                if self._wanting == 0:
                    torch.set_deterministic_debug_mode(self._found)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Puts the mode back where nobody but this call can have changed it."""
        found, by_itself = torch.get_deterministic_debug_mode(), alone()
        try:
            yield
        finally:
            if by_itself and alone() and torch.get_deterministic_debug_mode() != found:
                torch.set_deterministic_debug_mode(found)


_STRICTNESS = _Strictness()


@contextmanager
def own_model(model: nn.Module) -> Iterator[None]:
    """Runs the caller's own model (what cannot be copied) in eval mode and without `torch.compile`.

    Puts back its flags, buffers and gradients.
    """
    # What TorchScript has frozen has no such flag any more.
    training = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    buffers = [(buffer, buffer._version, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        for module, _ in training:
            module.training = False
        with running_plainly(model):
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


def _after_fork() -> None:
    if _several_threads_ran:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
