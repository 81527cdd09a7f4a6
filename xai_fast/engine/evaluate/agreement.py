"""Gradients that autograd does not take through the model's own forward: compared with those once, before use.

Capturing forgets what leaves the outputs alone: stretches without gradients, backwards of custom functions, hooks on
tensors. So what was captured is trusted with a gradient only after it gave the model's own on the clean row.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xai_fast.core import autograd
from xai_fast.core.copies import hooked
from xai_fast.core.hooks import shadowed
from xai_fast.core.memory import out_of_memory
from xai_fast.core.prepared import Prepared
from xai_fast.core.verify import difference, floats
from xai_fast.engine.gradients import backward as explicit
from xai_fast.engine.gradients.backward import Rule, rectified
from xai_fast.engine.replay.tail import Tail
from xai_fast.graph.captured import Captured, own_forwards
from xai_fast.graph.reasons import first_line
from xai_fast.graph.steps import INPUT, Step, filled

from .watch import in_order, watched

if TYPE_CHECKING:
    from xai_fast.engine.gradients.backward import Backward
    from xai_fast.engine.gradients.rescale import Rescale

# How far two backwards may be apart, as a share of the gradient's norm: they agree to 1e-6 in float32, or, where
# rounding moves a value over a ReLU's kink, to 2 % (ResNet-50, MobileNetV2, DenseNet-121 with awakened weights).
_ALIKE = {torch.float64: 1e-8, torch.float32: 0.03, torch.bfloat16: 0.3, torch.float16: 0.1}
_WORSE = 4.0  # times the error to float64 that autograd's own float32 run has, where they are further apart
_SAME = 1e-6  # two backwards by the same kernels
_FORGOTTEN = "what was captured has another gradient than the model"
_NO_MEMORY = "memory ran out where what was captured was to give the model's gradient"

Gradients = Sequence[Tensor | None]


def backward_for(
    prepared: Prepared, shape: tuple[int, ...], layers: tuple[str, ...] = (), rule: Rule = "gradient"
) -> Backward | str:
    """The explicit backward of a prepared model, once it has given autograd's gradient; or why it is not used.

    Arguments and errors as of `backward_of`.
    """
    if prepared.borrows:
        return prepared.resists  # and nothing need be imported
    backward = explicit.backward_of(prepared, shape, layers, rule)
    if isinstance(backward, str):
        return backward

    def ours(row: Tensor) -> Gradients:
        run = backward(row)
        scores = _projected(run.raw)
        return [None] * max(len(layers), 1) if scores is None else [g[:, 0] for g in run.gradients(scores[None, None])]

    return _disagreement(prepared, prepared.captured[shape], layers, rule, ours, "explicit") or backward


def tail_refusal(prepared: Prepared, shape: tuple[int, ...], layers: tuple[str, ...], tail: Tail) -> str | None:
    """Why gradients at these layers are not taken through their tail; None where they are the model's own."""
    if not tail.differentiates:
        return "a part of the forward runs without gradients"

    def ours(row: Tensor) -> Gradients:
        kept = tail.keep(row)
        if tail.linear:
            raw = tail.clean(kept).detach().requires_grad_()
            (by_output,) = _by(_projected(raw), [raw])
            return [None if by_output is None else tail.spread(by_output[:, None], kept)[:, 0]]
        raw, activations = tail.differentiable(kept)
        return _by(_projected(raw), activations)

    return _disagreement(prepared, prepared.captured[shape], layers, "gradient", ours, "tail")


def rescale_for(prepared: Prepared, shape: tuple[int, ...], layers: tuple[str, ...] = ()) -> Rescale | str:
    """The rescale rule on a prepared model whose steps have the model's own gradient; or why it does not exist.

    Arguments and errors as of `rescale_of`.
    """
    from xai_fast.engine.gradients.rescale import (
        rescale_of,  # few need it, and every import of the engine would pay for it
    )

    rescale = rescale_of(prepared, shape, layers)
    if isinstance(rescale, str):
        return rescale
    captured = prepared.captured[shape]
    ours = _stepwise(captured, captured.graph.steps)
    refused = _disagreement(prepared, captured, (), "gradient", lambda row: ours(row)[1], "steps")
    return refused or _hooks_that_reach(prepared, captured) or rescale


def _stepwise(captured: Captured, steps: Sequence[Step]) -> Callable[[Tensor], tuple[Any, Gradients]]:
    """Runs a row by steps that take the place of those captured: what is returned, and its gradient by autograd."""
    program = captured.program(steps, {INPUT}, captured.graph.results, plain=True)

    def run(row: Tensor) -> tuple[Any, Gradients]:
        leaf = row.requires_grad_()
        raw = filled(captured.graph.output, {**captured.graph.fixed, **program.run({INPUT: leaf.clone()})})
        return raw, _by(_projected(raw), [leaf])

    return run


def _hooks_that_reach(prepared: Prepared, captured: Captured) -> str | None:
    """Why the modules' formulas, which is what the rescale rule knows, do not have the gradient that hooks make of it.

    A hook that changes what a module reads or returns is none of them: whoever runs it says so.
    """
    steps, row, key = captured.graph.steps, captured.example, ("hooks", (), "gradient")
    hooks = [step for step in steps if step.module is not None and hooked(step.module)]
    if not hooks or row is None:
        return None
    if key not in captured.agreements:
        from xai_fast.engine.gradients.rescale.hooked import formula  # as above

        bare = _stepwise(captured, [formula(step) if step in hooks else step for step in steps])
        assert isinstance(prepared.module, nn.Module)
        with torch.enable_grad(), shadowed(prepared.module):
            (raw, hooked_gradient), (raw_too, gradient) = _stepwise(captured, steps)(row.clone()), bare(row.clone())
        same = difference(floats(raw), floats(raw_too), row.dtype) is None
        apart = same and _error(gradient, hooked_gradient) > _SAME
        captured.agreements[key] = "a hook changes gradients, of which its formulas know nothing" if apart else None
    return captured.agreements[key]


def _disagreement(
    prepared: Prepared,
    captured: Captured,
    layers: tuple[str, ...],
    rule: Rule,
    ours: Callable[[Tensor], Gradients],
    of: str,
) -> str | None:
    """Why `ours` is not what autograd makes of the model's own forward, told once; None where it is."""
    key = (of, layers, rule)
    if key not in captured.agreements:
        with torch.enable_grad():
            found = _compared(prepared, captured, layers, rule, ours)
        if found == _NO_MEMORY:
            return found  # says nothing about the gradient: a later call may find the room
        captured.agreements[key] = found
    return captured.agreements[key]


def _compared(
    prepared: Prepared, captured: Captured, layers: tuple[str, ...], rule: Rule, ours: Callable[[Tensor], Gradients]
) -> str | None:
    row = captured.example
    assert row is not None
    assert isinstance(prepared.module, nn.Module)
    try:
        truth = _by_autograd(prepared, row, layers, rule)
        with shadowed(prepared.module):  # hooks see the rows that the user asked about
            found = ours(row.clone(memory_format=torch.preserve_format))
    except Exception as error:  # the user's forward, or steps on another path than it, may raise anything
        return _NO_MEMORY if out_of_memory(error) else f"{_FORGOTTEN}: {first_line(error)}"
    if [part is None for part in truth] != [part is None for part in found]:
        return f"{_FORGOTTEN}: only one of them has any"
    error = _error(found, truth)
    if error <= _ALIKE.get(row.dtype, 0.03):
        return None
    if row.dtype is torch.float32:
        try:
            exact = _by_autograd(prepared, row, layers, rule, double=True)
        except Exception as why:  # not every forward runs in float64
            if out_of_memory(why):
                return _NO_MEMORY
            return f"{_FORGOTTEN}, by {error:.1e} of it, and cannot be asked in float64: {first_line(why)}"
        if _error(found, exact) <= _WORSE * _error(truth, exact) + 1e-4:
            return None
    return f"{_FORGOTTEN}, by {error:.1e} of it"


def _by_autograd(
    prepared: Prepared, row: Tensor, layers: tuple[str, ...], rule: Rule, *, double: bool = False
) -> Gradients:
    """The model's own gradients by what the layers return, or by the input where there are none."""
    assert isinstance(prepared.module, nn.Module)
    if double:
        with own_forwards(prepared.module):
            wide = copy.deepcopy(prepared.module).double()
        prepared, row = dataclasses.replace(prepared, module=wide), row.double()
    module = prepared.module
    assert isinstance(module, nn.Module)
    leaf = row.detach().clone(memory_format=torch.preserve_format)
    with shadowed(module), nullcontext() if rule == "gradient" else rectified(rule):
        if not layers:
            leaf.requires_grad_()
            # The copy is for models that write into their input, which autograd forbids on a leaf.
            return _by(_projected(module(leaf.clone(memory_format=torch.preserve_format))), [leaf])
        with watched(prepared, layers) as captured:
            scores = _projected(module(leaf))
        return _by(scores, in_order(captured, layers))


def _projected(raw: Any) -> Tensor | None:
    """One number that everything in a raw output goes into, by weights of its own; None where nothing is led back."""
    generator = torch.Generator().manual_seed(0)
    total = None
    for part in floats(raw):
        weight = torch.randn(part.shape, generator=generator, dtype=torch.float64, device="cpu").to(part.device)
        if part.requires_grad:
            # Parts of a large output must not hide those of a small one.
            wide = part.double()  # squares and sums of half precision soon have no number there
            scale = wide.detach().square().mean().sqrt().clamp_min(torch.finfo(part.dtype).tiny)
            share = (wide * weight).sum() / scale
            total = share if total is None else total + share
    return total


def _by(scores: Tensor | None, at: list[Tensor]) -> Gradients:
    if scores is None:
        return [None] * len(at)
    return autograd.grad(scores, at, allow_unused=True)


def _error(found: Gradients, truth: Gradients) -> float:
    """The largest distance of two gradients, as a share of the norm of the second; 0 where both are zero."""
    errors = []
    for mine, other in zip(found, truth, strict=True):
        if mine is None or other is None:
            continue
        mine, other = mine.double(), other.double()
        distance, norm = float((mine - other).norm()), float(other.norm())
        errors.append(distance / norm if norm else float(distance > 0))
    return max((error if error == error else float("inf") for error in errors), default=0.0)
