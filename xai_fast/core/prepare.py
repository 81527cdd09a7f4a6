"""A copy of the caller's model made ready to answer many questions: frozen, captured, folded, in a fast layout."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.graph.capture import is_own_leaf
from xai_fast.graph.deadline import REASON, out_of_time, takes
from xai_fast.graph.fold import drop_identities, fold_batchnorms
from xai_fast.graph.layout import ExactStatistics, keep_long_sums_plain, normalises, to_channels_last
from xai_fast.graph.reasons import first_line
from xai_fast.graph.scopes import Scope, scopes

from .arguments import arguments_of
from .atoms import is_atom
from .copies import copied, has_hooks, hooked, traits, unwrapped
from .hooks import shadowed, unhooked
from .install import differs, install, installed, reproduces, two_rows
from .prepared import HALVES, Prepared, reducible
from .rows import mixed_rows, mixing_of
from .sharing import share_weights
from .snapshot import Path
from .verify import Observation, floats, observe, row_of, settled


def prepare(
    model: Callable[[Tensor], Any],
    anchors: frozenset[str],
    *,
    fast: bool,
    compiled: bool,
    example: Tensor,
    fold: bool = True,
    others: Collection[nn.Module] = (),
) -> Prepared:
    """Prepares `model` for inputs like `example`.

    Args:
        model: a module, or any callable (which is used as it is).
        anchors: names of the layers that somebody will look at; folding does not cross them.
        fast: run in reduced precision (bfloat16 on the CPU, float16 on CUDA) what is single precision throughout, and
            gives the same in both.
        compiled: run through `torch.compile`.
        example: (1, C, *S) one clean input, on which the prepared copy must reproduce the model.
        fold: whether capturing and folding are tried.
        others: copies of the model that are in use, whose weights are shared where they are the same.
    """
    began = time.perf_counter()
    if not isinstance(model, nn.Module):
        note = "a plain callable is used as it is"
        return _as_it_is(Prepared(model, copied=False, dtype=None, device=None, notes=[note], resists=note), example)
    dtype, device = traits(model)
    try:
        plain = copied(model)
    except Exception as error:  # anything may refuse to be copied, for any reason of its own
        return _uncopied(model, error, dtype, device, example)
    prepared = _prepared(model, plain, anchors, fast=fast, compiled=compiled, example=example, fold=fold, others=others)
    prepared.seconds = time.perf_counter() - began
    return prepared


def _prepared(
    model: nn.Module,
    plain: nn.Module,
    anchors: frozenset[str],
    *,
    fast: bool,
    compiled: bool,
    example: Tensor,
    fold: bool,
    others: Collection[nn.Module],
) -> Prepared:
    """What is made of a copy; arguments as of `prepare`."""
    began, (dtype, device) = time.perf_counter(), traits(model)
    trial = Prepared(plain, copied=True, dtype=dtype, device=device).trial(example, dtype)
    with ExactStatistics() as statistics:
        seen = settled(plain, model, trial)
    takes((time.perf_counter() - began) / 2)
    exempt = seen.restless | _shared(unwrapped(model), plain)

    def started(module: nn.Module) -> Prepared:
        made = Prepared(module, copied=True, dtype=dtype, device=device, exempt=exempt)
        made.takes_statistics = statistics.met and not compiled
        made.footprints[tuple(example.shape[1:])] = seen.footprint
        return made

    def mixing() -> Prepared | None:
        mixed = mixing_of(plain, trial, seen)
        # Unfolded: nothing done to it could be told from what its rows do.
        return None if mixed is None else _alone(started(copied(model)), mixed)

    # Where the model is captured and fused, comparing that tells as well whether rows mix, but in half precision.
    late = not (fast or compiled or has_hooks(model))
    if not late and (by_itself := mixing()) is not None:
        return by_itself
    prepared = started(plain)
    prepared.reducible = reducible(plain) and {part.dtype for part in floats(seen.outputs)} == {torch.float32}
    fast = fast and prepared.reducible
    prepared.draws |= seen.draws
    whole = _made_fast(prepared, model, plain, anchors, seen, example, fast=fast, fold=fold, others=others)
    if late and not (whole and _rows_compared(prepared, example)) and (by_itself := mixing()) is not None:
        return by_itself
    if fast and not whole:
        single = prepare(model, anchors, fast=False, compiled=compiled, example=example, fold=fold, others=others)
        single.notes.append("it runs in single precision: in half precision it gives other numbers, or none")
        return single
    if not whole:
        _start_over(prepared, model, seen, example)
    assert isinstance(prepared.module, nn.Module)
    prepared.compiled = torch.compile(prepared.module) if compiled else None
    return prepared


def _made_fast(
    prepared: Prepared,
    model: nn.Module,
    plain: nn.Module,
    anchors: frozenset[str],
    seen: Observation,
    example: Tensor,
    *,
    fast: bool,
    fold: bool,
    others: Collection[nn.Module],
) -> bool:
    """Captures, folds and lays out the copy; whether it still answers what was observed."""
    parts: list[Scope] = []
    if (further := arguments_of(model)) is not None and further.following:
        prepared.resists = "tensors of its `args` or `kwargs` follow their sample"
    elif not fold:
        prepared.resists = "what was captured for inputs of another shape does not fit these"
    elif seen.unsteady is not None:
        prepared.resists = seen.unsteady
    elif out_of_time():
        prepared.resists = REASON
    else:
        parts = _captured(prepared, anchors, seen, example)
    if prepared.resists:
        prepared.notes.append(f"the model runs as it is: {prepared.resists}")
        prepared.module = copied(model)  # tracing and observing may have changed what `plain` keeps
    # In half precision a mistake would hide in the rounding, so the folded weights are checked before.
    sound = not (fast and prepared.folded) or reproduces(prepared, seen, example)
    _lay_out(prepared, fast=fast, plain=plain)
    if not seen.restless and isinstance(prepared.module, nn.Module):  # nothing writes into its own weights
        share_weights(prepared.module, others)
    return sound and installed(prepared, parts, seen, example)


def verify(prepared: Prepared, model: Callable[[Tensor], Any], example: Tensor) -> str | None:
    """Checks a copy in use on inputs of another shape; returns why it may not be used there, or None."""
    if not (prepared.copied and isinstance(model, nn.Module) and isinstance(prepared.module, nn.Module)):
        return None
    seen = observe(copied(model), prepared.trial(example, traits(model)[0]))
    prepared.exempt |= seen.restless
    prepared.footprints[tuple(example.shape[1:])] = seen.footprint
    prepared.draws |= seen.draws
    if prepared.alone:
        return None
    if (mixed := mixing_of(copied(model), prepared.trial(example, traits(model)[0]), seen)) is not None:
        return mixed
    other = next(iter(prepared.captured.values()), None)
    if other is not None:
        try:
            install(prepared, other.graph.fresh(), seen, example)
        except Exception as error:  # what was captured may not run at all on this shape
            prepared.captured.pop(tuple(example.shape[1:]), None)
            prepared.notes.append(f"not captured for inputs {tuple(example.shape[1:])}: {first_line(error)}")
    return differs(prepared, seen, example)


def _uncopied(
    model: nn.Module, error: Exception, dtype: torch.dtype | None, device: torch.device | None, example: Tensor
) -> Prepared:
    """The caller's own object, where there can be no copy of it."""
    scripted = isinstance(model, torch.jit.ScriptModule)
    reason = "it is TorchScript" if scripted else f"{type(error).__name__}: {error}"
    note = f"the model cannot be copied ({reason}), so its own object runs, under guard"
    own = Prepared(unwrapped(model), copied=False, dtype=dtype, device=device, notes=[note], resists=note)
    return _as_it_is(own, example)


def _as_it_is(prepared: Prepared, example: Tensor) -> Prepared:
    """What is not copied, told whether its rows depend on each other."""
    if getattr(prepared.module, "rows_are_apart", False):
        return prepared
    with prepared.running():
        reason = mixed_rows(prepared.module, prepared.trial(example, prepared.dtype))
    return prepared if reason is None else _alone(prepared, reason)


def _rows_compared(prepared: Prepared, example: Tensor) -> bool:
    """Whether all that will run on inputs like `example` gave two rows side by side what the model gives each alone."""
    captured = prepared.captured.get(tuple(example.shape[1:]))
    return captured is not None and captured.fuses and not captured.graph.gradient_gaps


def _alone(prepared: Prepared, reason: str) -> Prepared:
    """Every row of this model runs by itself from now on."""
    prepared.alone, prepared.mixed = True, reason
    prepared.resists = f"every row runs alone: {reason}"
    prepared.notes.append(prepared.resists)
    return prepared


def _shared(model: nn.Module, copy: nn.Module) -> frozenset[Path]:
    """Where the user's own leaf modules, which always run as they are, hold the same objects as those of the copy."""
    others = dict(copy.named_modules())
    return frozenset(
        (*(("_modules", name) for name in path.split(".")), key)
        for path, own in model.named_modules()
        if path in others and path and is_own_leaf(own)
        for key, value in vars(own).items()
        if vars(others[path]).get(key) is value and not is_atom(value)
    )


def _captured(prepared: Prepared, anchors: frozenset[str], seen: Observation, example: Tensor) -> list[Scope]:
    """Captures and folds a second copy, which becomes the prepared module; returns what was captured."""
    assert isinstance(prepared.module, nn.Module)
    work = copied(prepared.module)
    hooks_on = {path: module for path, module in work.named_modules() if hooked(module)}
    barriers, rows = frozenset(map(id, hooks_on.values())), two_rows(prepared, example)
    parts: list[Scope] = []
    refusals: list[str] = []
    with (
        unhooked(work),
        contextlib.suppress(Exception),
    ):  # a forward that waits for what a hook brings may raise anything
        parts, refusals = scopes(work, barriers, rows)  # hooks fire where their modules are called, when steps run
    if hooks_on and not _carried(parts, work, rows, seen):
        with shadowed(work):  # they carry what one layer returns to another, which is a part of the graph
            parts, refusals = scopes(work, barriers, rows)
    for part in parts:
        own = part.own(anchors | hooks_on.keys())
        prepared.folded += fold_batchnorms(work, part.graph, own)
        drop_identities(part.graph, own)
    prepared.notes += [f"not traceable: {reason}" for reason in refusals]
    prepared.module = work
    return parts


def _carried(parts: list[Scope], work: nn.Module, rows: Tensor, seen: Observation) -> bool:
    """Whether the steps alone, with hooks firing at the modules that they call, give what the model gives."""
    whole = next((part.graph for part in parts if not part.path), None)
    if whole is None:
        return False
    try:
        with shadowed(work):
            first, both = whole.record(rows)
    except Exception:  # as there
        return False
    answers = [floats(first), row_of(both, 1, 2)]
    return all(seen.differs(row, answer, rows.dtype) is None for row, answer in enumerate(answers))


def _start_over(prepared: Prepared, model: nn.Module, seen: Observation, example: Tensor) -> None:
    """A fresh copy, unfolded; in the plain layout where its forward takes views that no other has."""
    prepared.module, prepared.folded = copied(model), 0
    _lay_out(prepared, fast=False, plain=model)
    if not prepared.channels_last or reproduces(prepared, seen, example):
        return
    prepared.module = copied(model)
    _lay_out(prepared, fast=False, plain=model, channels_last=False)
    differs(prepared, seen, example)  # what it raises in its own layout is not ours to hide


def _lay_out(prepared: Prepared, *, fast: bool, plain: nn.Module, channels_last: bool = True) -> None:
    """Brings the copy to the dtype and memory layout in which it will run."""
    module, dtype, device = prepared.module, prepared.dtype, prepared.device
    assert isinstance(module, nn.Module)
    if fast and dtype is not None and device is not None:
        prepared.dtype = HALVES.get(device.type, dtype)
        prepared.reduced = prepared.dtype is not dtype
        module.to(prepared.dtype)
    # The libraries of CPUs and GPUs both prefer it; in float64 the CPU's convolutions would copy back and forth.
    prepared.channels_last = channels_last and not (
        device is not None and device.type == "cpu" and dtype is torch.float64
    )
    prepared.short_sums = prepared.single_on_cpu and not normalises(plain)
    if prepared.channels_last:
        to_channels_last(module)
        if prepared.short_sums and (count := keep_long_sums_plain(module)):
            note = f"{count} convolutions run in the plain layout or in stretches, where they are more exact"
            if note not in prepared.notes:
                prepared.notes.append(note)
