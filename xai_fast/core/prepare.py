"""A copy of the caller's model made ready to answer many questions: frozen, captured, folded, in a fast layout."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .atoms import is_atom
from .copies import copied, hooked, traits, unwrapped
from .graph.capture import is_own_leaf
from .graph.captured import Captured, Replaced
from .graph.fold import drop_identities, fold_batchnorms
from .graph.scopes import Scope, scopes
from .graph.steps import Graph
from .layout import ExactStatistics, keep_long_sums_plain, normalises, to_channels_last
from .prepared import HALVES, Prepared, reducible
from .snapshot import Path
from .verify import Observation, difference, first_line, floats, observe, row_of, unhooked


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
        fast: run in reduced precision (bfloat16 on the CPU, float16 on CUDA) what is single precision throughout, and
            gives the same in both.
        compiled: run through `torch.compile`.
        example: (1, C, *S) one clean input, on which the prepared copy must reproduce the model.
        fold: whether capturing and folding are tried.
    """
    began = time.perf_counter()
    if not isinstance(model, nn.Module):
        note = "a plain callable is used as it is"
        return Prepared(model, copied=False, dtype=None, device=None, notes=[note], resists=note)
    dtype, device = traits(model)
    try:
        plain = copied(model)
    except Exception as error:  # anything may refuse to be copied, for any reason of its own
        note = f"the model cannot be copied ({type(error).__name__}: {error}), so its own object runs, under guard"
        return Prepared(unwrapped(model), copied=False, dtype=dtype, device=device, notes=[note], resists=note)
    prepared = Prepared(plain, copied=True, dtype=dtype, device=device)
    with ExactStatistics() as statistics:
        seen = _settled(plain, model, prepared.trial(example, dtype))
    prepared.takes_statistics = statistics.met and not compiled
    prepared.exempt = seen.restless | _shared(unwrapped(model), plain)
    prepared.footprints[tuple(example.shape[1:])] = seen.footprint
    prepared.reducible = reducible(plain) and {part.dtype for part in floats(seen.outputs)} == {torch.float32}
    fast = fast and prepared.reducible
    prepared.draws |= seen.draws
    parts: list[Scope] = []
    if not fold:
        prepared.resists = "what was captured for inputs of another shape does not fit these"
    elif seen.unsteady is not None:
        prepared.resists = seen.unsteady
    else:
        parts = _captured(prepared, anchors, example)
    if prepared.resists:
        prepared.notes.append(f"the model runs as it is: {prepared.resists}")
        prepared.module = copied(model)  # tracing and observing may have changed what `plain` keeps
    # In half precision a mistake would hide in the rounding, so the folded weights are checked before.
    sound = not (fast and prepared.folded) or _reproduces(prepared, seen, example)
    _lay_out(prepared, fast=fast, plain=plain)
    whole = sound and _installed(prepared, parts, seen, example)
    if fast and not whole:
        single = prepare(model, anchors, fast=False, compiled=compiled, example=example, fold=fold)
        single.notes.append("it runs in single precision: in half precision it gives other numbers, or none")
        return single
    if not whole:
        _start_over(prepared, model, seen, example)
    assert isinstance(prepared.module, nn.Module)
    prepared.compiled = torch.compile(prepared.module) if compiled else None
    prepared.seconds = time.perf_counter() - began
    return prepared


def _settled(plain: nn.Module, model: nn.Module, rows: list[Tensor]) -> Observation:
    """What `plain` answers; once a forward has kept what it works out whatever the input, it is steady."""
    seen = observe(plain, rows)
    if seen.unsteady is None:
        return seen
    again, backwards = observe(plain, rows), observe(copied(model), rows[::-1])
    alike = all(
        difference(truth, answer, rows[0].dtype) is None
        for other in (again.outputs, backwards.outputs[::-1])
        for truth, answer in zip(seen.outputs, other, strict=True)
    )
    return again if alike else seen


def verify(prepared: Prepared, model: Callable[[Tensor], Any], example: Tensor) -> str | None:
    """Checks a copy in use on inputs of another shape; returns why it may not be used there, or None."""
    if not (prepared.copied and isinstance(model, nn.Module) and isinstance(prepared.module, nn.Module)):
        return None
    seen = observe(copied(model), prepared.trial(example, traits(model)[0]))
    prepared.exempt |= seen.restless
    prepared.footprints[tuple(example.shape[1:])] = seen.footprint
    prepared.draws |= seen.draws
    other = next(iter(prepared.captured.values()), None)
    if other is not None:
        try:
            _install(prepared, other.graph.fresh(), seen, example, like=other)
        except Exception as error:  # what was captured may not run at all on this shape
            prepared.captured.pop(tuple(example.shape[1:]), None)
            prepared.notes.append(f"not captured for inputs {tuple(example.shape[1:])}: {first_line(error)}")
    return _differs(prepared, seen, example)


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


def _captured(prepared: Prepared, anchors: frozenset[str], example: Tensor) -> list[Scope]:
    """Captures and folds a second copy, which becomes the prepared module; returns what was captured."""
    assert isinstance(prepared.module, nn.Module)
    work = copied(prepared.module)
    hooks_on = {path: module for path, module in work.named_modules() if hooked(module)}
    with unhooked(work):
        parts, refusals = scopes(work, frozenset(map(id, hooks_on.values())), _two_rows(prepared, example))
    for part in parts:
        own = part.own(anchors | hooks_on.keys())
        prepared.folded += fold_batchnorms(work, part.graph, own)
        drop_identities(part.graph, own)
    prepared.notes += [f"not traceable: {reason}" for reason in refusals]
    prepared.module = work
    return parts


def _start_over(prepared: Prepared, model: nn.Module, seen: Observation, example: Tensor) -> None:
    """A fresh copy, unfolded; in the plain layout where its forward takes views that no other has."""
    prepared.module, prepared.folded = copied(model), 0
    _lay_out(prepared, fast=False, plain=model)
    if not prepared.channels_last or _reproduces(prepared, seen, example):
        return
    prepared.module = copied(model)
    _lay_out(prepared, fast=False, plain=model, channels_last=False)
    _differs(prepared, seen, example)  # what it raises in its own layout is not ours to hide


def _lay_out(prepared: Prepared, *, fast: bool, plain: nn.Module, channels_last: bool = True) -> None:
    """Brings the copy to the dtype and memory layout in which it will run."""
    module, dtype, device = prepared.module, prepared.dtype, prepared.device
    assert isinstance(module, nn.Module)
    if fast and dtype is not None and device is not None:
        prepared.dtype = HALVES.get(device.type, dtype)
        module.to(prepared.dtype)
    # oneDNN and cuDNN both prefer it; in float64 the CPU's convolutions would copy back and forth.
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


def _installed(prepared: Prepared, parts: list[Scope], seen: Observation, example: Tensor) -> bool:
    """Puts the captured parts in place, those that reproduce the model; False where folding itself must go."""
    whole = next((part for part in parts if not part.path), None)
    if whole is not None:
        try:
            _install(prepared, whole.graph, seen, example)
        except Exception as error:  # steps that run on another path than the forward may raise anything
            prepared.resists = f"what was captured does not reproduce the model: {first_line(error)}"
            prepared.notes.append(prepared.resists)
        else:
            return True
    elif not prepared.resists:
        prepared.resists = next((note for note in prepared.notes if note.startswith("not traceable")), "")
    if not _reproduces(prepared, seen, example):
        return False
    _replace_parts(prepared, parts, seen, example)
    return True


def _install(
    prepared: Prepared, graph: Graph, seen: Observation, example: Tensor, like: Captured | None = None
) -> None:
    """Records the graph on this shape, checks it as it is and fused, and makes it what runs.

    Raises:
        ValueError: it does not reproduce the model; or whatever its steps raise.
    """
    assert isinstance(prepared.module, nn.Module)
    rows = _two_rows(prepared, example)
    with unhooked(prepared.module), torch.no_grad():
        first, both = graph.record(rows)
        captured = Captured(graph, fused=prepared.fuses, short_sums=prepared.short_sums, like=like)
        answers = [(first, 0, 1), (both, 1, 2)]
        if captured.fuses:
            fused = captured(rows.clone(memory_format=torch.preserve_format))
            answers += [(fused, 0, 2), (fused, 1, 2)]
    for answer, row, count in answers:
        own = row_of(answer, row if count > 1 else 0, count)
        reason = seen.differs(row, own, prepared.dtype or torch.float32)
        if reason is not None:
            raise ValueError(reason)
    prepared.captured[tuple(example.shape[1:])] = captured


def _replace_parts(prepared: Prepared, parts: list[Scope], seen: Observation, example: Tensor) -> None:
    """Lets captured parts of a model that resists as a whole run as programs, where those fuse and give the same."""
    parts = [part for part in parts if part.path and prepared.fuses]
    if not parts:
        return
    try:
        calls = _arguments(prepared, parts, example)
        for part in parts:
            args, kwargs = calls[part.path][0] if len(calls[part.path]) == 1 else ((), {})
            if len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and args[0].ndim > 1 and len(args[0]) == 2:
                part.graph.record(args[0])
                captured = Captured(part.graph, fused=True, short_sums=prepared.short_sums)
                part.module.forward = Replaced(part.module, captured, args[0].shape[1:])  # type: ignore[method-assign]
        if reason := _differs(prepared, seen, example):
            raise ValueError(reason)
    except Exception as error:  # as in `_installed`
        prepared.notes.append(f"its parts run as they are: {first_line(error)}")
        for part in parts:
            vars(part.module).pop("forward", None)


@torch.no_grad()
def _arguments(prepared: Prepared, parts: list[Scope], example: Tensor) -> dict[str, list[Any]]:
    """What each part is called with when two rows run, one entry per call."""
    assert isinstance(prepared.module, nn.Module)
    calls: dict[str, list[Any]] = {part.path: [] for part in parts}

    def watch(path: str) -> Callable[..., None]:
        return lambda _module, args, kwargs: calls[path].append((args, kwargs))

    handles = [part.module.register_forward_pre_hook(watch(part.path), with_kwargs=True) for part in parts]
    try:
        prepared.module(_two_rows(prepared, example))
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _two_rows(prepared: Prepared, example: Tensor) -> Tensor:
    return prepared.empty(2, example).copy_(torch.cat(prepared.trial(example, prepared.dtype)))


def _reproduces(prepared: Prepared, seen: Observation, example: Tensor) -> bool:
    try:
        reason = _differs(prepared, seen, example)
    except Exception as error:  # a forward may fail in another layout for any reason
        reason = first_line(error)
    if reason:
        prepared.notes.append(f"folding was taken back: {reason}")
    return not reason


@torch.no_grad()
def _differs(prepared: Prepared, seen: Observation, example: Tensor) -> str | None:
    """In what the prepared module's own forward differs from what the model answered, or None."""
    assert isinstance(prepared.module, nn.Module)
    with unhooked(prepared.module):
        for number, row in enumerate(prepared.trial(example, prepared.dtype)):
            batch = prepared.empty(1, example).copy_(row)
            reason = seen.differs(number, prepared.module(batch), prepared.dtype or torch.float32)
            if reason is not None:
                return f"{reason} on inputs {tuple(example.shape[1:])}"
    return None
