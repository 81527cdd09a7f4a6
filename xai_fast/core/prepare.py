"""A copy of the caller's model made ready to answer many questions: frozen, in eval mode, folded, in a fast layout."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .fold import fold_batchnorms
from .guard import own_model
from .layout import LAYOUTS, keep_long_sums_plain, normalises, to_channels_last

# How far folding may move an output, as a share of its largest magnitude, before it is taken for a mistake.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
_FORWARD_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_HOOKS = (*_FORWARD_HOOKS, "_backward_hooks", "_backward_pre_hooks")
_FAST = {"cpu": torch.bfloat16, "cuda": torch.float16}


@dataclass
class Footprint:
    """What one row of a given input shape costs in memory, in bytes of activations."""

    largest: int
    total: int


@dataclass
class Prepared:
    """What the engine runs. Call it with a batch in its dtype, device and layout; it answers as the model would.

    Attributes:
        module: the copy, or the caller's own object where that cannot be copied.
        compiled: the same through `torch.compile`, where that was asked for.
        copied: whether `module` is a copy.
        dtype: of the batches it takes; None follows the inputs (a plain callable).
        device: of the batches it takes; None follows the inputs.
        channels_last: whether batches of images are laid out channels-last.
        folded: number of batch normalisations folded away.
        notes: why something faster was not done, one sentence each.
        seconds: what preparing cost, verification included.
        footprints: per input shape (C, *S) that was verified.
        outputs: per input shape, the shape (K,) of the scores of one row, once known.
        batch_sizes: what timing has settled, kept by the engine per shape and kind of evaluation.
    """

    module: Callable[[Tensor], Any]
    copied: bool
    dtype: torch.dtype | None
    device: torch.device | None
    channels_last: bool = False
    folded: int = 0
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    footprints: dict[tuple[int, ...], Footprint] = field(default_factory=dict)
    outputs: dict[tuple[int, ...], int] = field(default_factory=dict)
    batch_sizes: dict[Any, int] = field(default_factory=dict)
    compiled: Callable[[Tensor], Any] | None = None

    def __call__(self, batch: Tensor) -> Any:
        """The model's raw output for a batch that `empty` or `adopt` made."""
        # A compiled module has no length and so no truth value.
        return self.module(batch) if self.compiled is None else self.compiled(batch)

    def empty(self, rows: int, like: Tensor) -> Tensor:
        """An uninitialised batch of `rows` variants of `like` (N, C, *S)."""
        return torch.empty(
            (rows, *like.shape[1:]),
            dtype=self.dtype or like.dtype,
            device=self.device or like.device,
            memory_format=self._layout(like.ndim),
        )

    def adopt(self, inputs: Tensor) -> Tensor:
        """The caller's inputs on the model's device, detached; each batch takes its own dtype as it is written."""
        return inputs.detach().to(self.device or inputs.device)

    def running(self) -> AbstractContextManager[None]:
        """The context in which the module may be called: the caller's own object needs its state put back."""
        if self.copied or not isinstance(self.module, nn.Module):
            return nullcontext()
        return own_model(self.module)

    def layer(self, name: str) -> nn.Module:
        """The copy's module of that name."""
        assert isinstance(self.module, nn.Module)
        return self.module.get_submodule(name)

    def _layout(self, ndim: int) -> torch.memory_format:
        return LAYOUTS.get(ndim, torch.contiguous_format) if self.channels_last else torch.contiguous_format


def prepare(
    model: Callable[[Tensor], Any],
    anchors: frozenset[str],
    *,
    fast: bool,
    compiled: bool,
    example: Tensor,
    fold: bool = True,
) -> Prepared:
    """Prepares `model` for inputs like `example`.

    Args:
        model: a module, or any callable (which is used as it is).
        anchors: names of the layers that somebody will look at; folding does not cross them.
        fast: run in reduced precision (bfloat16 on the CPU, float16 on CUDA).
        compiled: run through `torch.compile`.
        example: (1, C, *S) one clean input, on which the folded copy must reproduce the unfolded one.
        fold: whether folding is tried.
    """
    began = time.perf_counter()
    if not isinstance(model, nn.Module):
        return Prepared(model, copied=False, dtype=None, device=None, notes=["a plain callable is used as it is"])
    dtype, device = _traits(model)
    try:
        plain = copied(model)
    except Exception as error:  # anything may refuse to be copied, for any reason of its own
        note = f"the model cannot be copied ({type(error).__name__}: {error}), so its own object runs, under guard"
        return Prepared(model, copied=False, dtype=dtype, device=device, notes=[note])
    prepared = Prepared(plain, copied=True, dtype=dtype, device=device)
    if fold:
        _fold(prepared, anchors, example)
    else:
        _compare(plain, plain, prepared, example)
    assert isinstance(prepared.module, nn.Module)
    if fast and dtype is not None and device is not None:
        prepared.dtype = _FAST.get(device.type, dtype)
        prepared.module.to(prepared.dtype)
    # oneDNN and cuDNN both prefer it; in float64 the CPU's convolutions would copy back and forth.
    prepared.channels_last = not (device is not None and device.type == "cpu" and dtype is torch.float64)
    if prepared.channels_last:
        to_channels_last(prepared.module)
        single_on_cpu = prepared.dtype is torch.float32 and device == torch.device("cpu")
        if single_on_cpu and not normalises(plain) and (count := keep_long_sums_plain(prepared.module)):
            prepared.notes.append(f"{count} convolutions run in the plain layout, where they are more exact")
    if compiled:
        prepared.compiled = torch.compile(prepared.module)
    prepared.seconds = time.perf_counter() - began
    return prepared


def verify(prepared: Prepared, model: Callable[[Tensor], Any], example: Tensor) -> str | None:
    """Checks a copy in use on inputs of another shape; returns why it may not be used there, or None."""
    if not (prepared.copied and isinstance(model, nn.Module) and isinstance(prepared.module, nn.Module)):
        return None
    try:
        _compare(copied(model), prepared.module, prepared, example)
    except ValueError as error:
        return str(error)
    return None


def _fold(prepared: Prepared, anchors: frozenset[str], example: Tensor) -> None:
    """Folds a second copy and takes it where it reproduces the first one on the example."""
    plain = prepared.module
    assert isinstance(plain, nn.Module)
    folded = copied(plain)
    barriers = [folded.get_submodule(name) for name in sorted(anchors)] + [m for m in folded.modules() if _hooked(m)]
    with unhooked(folded):
        prepared.folded, refusals = fold_batchnorms(folded, barriers)
    prepared.notes += [f"not traceable, so not folded across: {reason}" for reason in refusals]
    try:
        _compare(plain, folded, prepared, example)
    except ValueError as error:
        prepared.folded = 0
        prepared.notes.append(f"folding was taken back: {error}")
    else:
        prepared.module = folded


@torch.no_grad()
def _compare(plain: nn.Module, folded: nn.Module, prepared: Prepared, example: Tensor) -> None:
    """Runs both on the example and on its mirror image, row by row; records the footprint of a row."""
    sample = prepared.adopt(example)
    trial = prepared.empty(2, example)
    trial[0], trial[1] = sample[0], sample[0].flip(-1)
    with unhooked(plain), unhooked(folded):
        # One by one, because two rows may not fit into memory where one does.
        truth = [plain(row) for row in trial.to(_traits(plain)[0] or trial.dtype).split(1)]
        sizes: list[int] = []
        with _measuring(folded, sizes):
            answer = [folded(row) for row in trial.split(1)]
    shape = tuple(example.shape[1:])
    own = trial[0].numel() * trial.element_size()
    prepared.footprints[shape] = Footprint(max([own, *sizes]), own + sum(sizes) // len(trial))
    left, right = _floats(truth), _floats(answer)
    if len(left) != len(right) or any(a.shape != b.shape for a, b in zip(left, right, strict=True)):
        raise ValueError("the copy returns another structure than the model")
    for a, b in zip(left, right, strict=True):
        a, b = a.double(), b.double()
        finite = a.isfinite()
        error = (
            (a - b)[finite].abs().amax() / a[finite].abs().amax().clamp_min(1e-30) if finite.any() else a.new_zeros(())
        )
        if not torch.equal(finite, b.isfinite()) or error > _TOLERANCE.get(trial.dtype, 1e-4):
            raise ValueError(f"it moves the output by {float(error):.1e} of its largest value on inputs {shape}")


def _floats(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


@contextmanager
def _measuring(module: nn.Module, sizes: list[int]) -> Iterator[None]:
    """Appends the bytes of every leaf module's output: the activations of one forward."""

    def record(_module: nn.Module, _args: Any, output: Any) -> None:
        sizes.extend(leaf.numel() * leaf.element_size() for leaf in _floats(output))

    leaves = [leaf for leaf in module.modules() if next(leaf.children(), None) is None]
    handles = [leaf.register_forward_hook(record) for leaf in leaves]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def unhooked(module: nn.Module) -> Iterator[None]:
    """Takes the user's forward hooks off our copy, for runs that the user did not ask for (tracing, verification)."""
    kept = [(m, kind, dict(getattr(m, kind))) for m in module.modules() for kind in _FORWARD_HOOKS]
    try:
        for m, kind, _ in kept:
            getattr(m, kind).clear()
        yield
    finally:
        for m, kind, hooks in kept:
            getattr(m, kind).update(hooks)


def copied(model: nn.Module) -> nn.Module:
    """A frozen eval copy of a module. Hooks are shared, not copied: they belong to whoever registered them."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for kind in _HOOKS:
            memo.update((id(hook), hook) for hook in getattr(module, kind).values())
        for value in module.__dict__.values():
            # deepcopy refuses tensors with a history, such as an activation that someone stored on the module.
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    original = getattr(model, "_orig_mod", model)  # torch.compile's wrapper holds the module it was given
    return copy.deepcopy(original, memo).eval().requires_grad_(False)


def _traits(model: nn.Module) -> tuple[torch.dtype | None, torch.device | None]:
    """Dtype and device of the first floating parameter or buffer; None where the model has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype, tensor.device
    return None, None


def has_hooks(model: nn.Module) -> bool:
    """Whether the user has registered hooks anywhere in the model."""
    return any(map(_hooked, model.modules()))


def _hooked(module: nn.Module) -> bool:
    return any(getattr(module, kind) for kind in _HOOKS)


def widened(output: Any) -> Any:
    """The model's output with every half-precision tensor in float32: what callable targets get."""

    def widen(leaf: Any) -> Any:
        half = isinstance(leaf, Tensor) and leaf.dtype in (torch.bfloat16, torch.float16)
        return leaf.float() if half else leaf

    return tree_map(widen, output)
