"""Rewrite fused steps once more: depthwise convolutions with the pointwise ones around them in one call.

Only for forwards that run as a whole: gradients and regions ask for what lies between.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .care import Care
from .fused import NOTHING, Activation, Bottleneck, FusedBottleneck, FusedConvolution, FusedResidual, Implementation
from .fused.shared import shared
from .operation import Kind
from .steps import Step, last_uses

_LONGEST = 3


def joined(steps: Sequence[Step], kept: Collection[int], implementation: Implementation) -> list[Step]:
    """The steps, with one in the place of every stretch that `implementation` runs as one.

    Args:
        steps: fused, in order, a whole forward.
        kept: values that are needed afterwards.
        implementation: of fused steps.
    """
    found, position = list[Step](), 0
    while position < len(steps):
        stretch = _stretch(steps, position, kept)
        joins = ((_join(stretch[:length], implementation), length) for length in range(len(stretch), 1, -1))
        step, length = next((join for join in joins if join[0] is not None), (None, 1))
        found.append(steps[position] if step is None else step)
        position += length
    return found


def _stretch(steps: Sequence[Step], start: int, kept: Collection[int]) -> Sequence[Step]:
    """Convolutions that follow each other, each of which alone reads the one before it, as what it convolves."""
    end = start
    while end < min(start + _LONGEST, len(steps)) and isinstance(steps[end].call, FusedConvolution | FusedResidual):
        before = steps[end - 1].makes if end > start else None
        if before is not None and not _reads_alone(steps, end, before, kept):
            break
        end += 1
    return steps[start:end]


def _reads_alone(steps: Sequence[Step], position: int, value: int, kept: Collection[int]) -> bool:
    reads = steps[position].reads
    residual = isinstance(steps[position].call, FusedResidual)
    return (
        reads[0] == value
        and len(reads) == (2 if residual else 1)
        and value not in kept
        and last_uses(steps[position:], ()).get(value) == 0
    )


def _join(stretch: Sequence[Step], implementation: Implementation) -> Step | None:
    """The stretch as one step; None where that is not to be had."""
    calls = [step.call for step in stretch]
    *others, last = calls
    if not all(isinstance(call, FusedConvolution) and call.pads for call in others) or not _joins(last):
        return None
    wide = [call.activation for call in others]  # of what lies between
    bare = isinstance(last, FusedResidual) or last.activation == NOTHING
    source = None
    if bare and len(set(wide)) == 1:
        source = _shared(calls if len(calls) == _LONGEST else [None, *calls], wide[0], implementation)
    if (
        source is None
        and len(calls) == _LONGEST - 1
        and not isinstance(last, FusedResidual)
        and wide == [last.activation]
    ):
        source = _shared([*calls, None], wide[0], implementation)
    if source is None:
        return None
    first, end = stretch[0], stretch[-1]
    args = (first.args[0], *end.args[1:])
    consumes = isinstance(last, FusedResidual) and last.consumes and end.reads[1] != first.reads[0]
    call = FusedBottleneck(source, tuple(calls), consumes, *_cares(calls))
    return Step(end.makes, call, args, {}, "", Kind.UNKNOWN, f"{first.label} to {end.label}")


def _joins(call: object) -> bool:
    """Whether a stretch may end with it."""
    return (isinstance(call, FusedConvolution) and call.pads) or (
        isinstance(call, FusedResidual) and call.pads and not call.rectified
    )


def _shared(
    calls: Sequence[FusedConvolution | FusedResidual | None], activation: Activation, implementation: Implementation
) -> Bottleneck | None:
    """One object for the same three convolutions, of which not all need be there."""
    expand, depth, project = (None if call is None else call.source for call in calls)
    assert depth is not None
    return shared(
        depth.weight,
        depth.bias,
        (implementation.name, "bottleneck", id(expand), id(project), activation),
        lambda: implementation.bottleneck(expand, depth, project, activation),
    )


def _cares(calls: Sequence[FusedConvolution | FusedResidual]) -> tuple[Care | None, float | None]:
    """What is measured of what the stretch reads; and of what it makes, in place of what lies between."""
    cares = [call.care for call in calls if call.care is not None]
    if len(cares) < len(calls):
        return None, None
    measured = ((0,) if 0 in cares[0].measured else ()) + ((1,) if 1 in cares[-1].measured else ())
    between = any(0 in care.measured for care in cares[1:])
    return Care(measured, max(care.bound for care in cares)), cares[-1].bound if between else None
