"""Puts what was captured in the place of a copy's own forward, as far as it gives what the model gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.graph.captured import Captured, Replaced
from xai_fast.graph.reasons import first_line
from xai_fast.graph.scopes import Scope
from xai_fast.graph.steps import Graph

from .hooks import shadowed, tensor_hooks_in
from .prepared import Prepared
from .verify import Observation, row_of


def installed(prepared: Prepared, parts: list[Scope], seen: Observation, example: Tensor) -> bool:
    """Puts the captured parts in place, those that reproduce the model; False where folding itself must go."""
    whole = next((part for part in parts if not part.path), None)
    if whole is not None:
        try:
            install(prepared, whole.graph, seen, example)
        except Exception as error:  # steps that run on another path than the forward may raise anything
            prepared.resists = f"what was captured does not reproduce the model: {first_line(error)}"
            prepared.notes.append(prepared.resists)
        else:
            return prepared.fuses or reproduces(prepared, seen, example)  # unfused its own forward is what runs
    elif not prepared.resists:
        prepared.resists = next((note for note in prepared.notes if note.startswith("not traceable")), "")
    if not reproduces(prepared, seen, example):
        return False
    _replace_parts(prepared, parts, seen, example)
    return True


def install(prepared: Prepared, graph: Graph, seen: Observation, example: Tensor) -> None:
    """Records the graph on this shape, checks it as it is and fused, and makes it what runs.

    Raises:
        ValueError: it does not reproduce the model; or whatever its steps raise.
    """
    assert isinstance(prepared.module, nn.Module)
    rows = two_rows(prepared, example)
    if hooking := tensor_hooks_in(prepared.module):
        graph.gradient_gaps = True
        note = f"gradients go through its own forward, in which `{hooking}` hooks tensors"
        prepared.notes += [] if note in prepared.notes else [note]
    with shadowed(prepared.module), torch.no_grad():
        first, both = graph.record(rows)
        captured = Captured(graph, fused_by=prepared.fused_by, short_sums=prepared.short_sums, example=rows[:1].clone())
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
                captured = Captured(part.graph, fused_by=prepared.fused_by, short_sums=prepared.short_sums)
                part.module.forward = Replaced(part.module, captured, args[0].shape[1:])  # type: ignore[method-assign]
        if reason := differs(prepared, seen, example):
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

    with shadowed(prepared.module):
        handles = [part.module.register_forward_pre_hook(watch(part.path), with_kwargs=True) for part in parts]
        try:
            prepared.module(two_rows(prepared, example))
        finally:
            for handle in handles:
                handle.remove()
    return calls


def two_rows(prepared: Prepared, example: Tensor) -> Tensor:
    """The trial rows as one batch, in the dtype and layout in which the copy runs."""
    return prepared.empty(2, example).copy_(torch.cat(prepared.trial(example, prepared.dtype)))


def reproduces(prepared: Prepared, seen: Observation, example: Tensor) -> bool:
    """Whether the prepared module's own forward answers what the model answered; notes why not."""
    try:
        reason = differs(prepared, seen, example)
    except Exception as error:  # a forward may fail in another layout for any reason
        reason = first_line(error)
    if reason:
        prepared.notes.append(f"folding was taken back: {reason}")
    return not reason


@torch.no_grad()
def differs(prepared: Prepared, seen: Observation, example: Tensor) -> str | None:
    """In what the prepared module's own forward differs from what the model answered, or None."""
    assert isinstance(prepared.module, nn.Module)
    with shadowed(prepared.module):
        for number, row in enumerate(prepared.trial(example, prepared.dtype)):
            batch = prepared.empty(1, example).copy_(row)
            reason = seen.differs(number, prepared.module(batch), prepared.dtype or torch.float32)
            if reason is not None:
                return f"{reason} on inputs {tuple(example.shape[1:])}"
    return None
