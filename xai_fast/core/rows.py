"""Whether the rows of a batch depend on each other, so that a row has an answer of its own only when it runs alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.graph.reasons import first_line

from .hooks import shadowed
from .memory import out_of_memory
from .verify import Observation, difference, floats, is_list_of_rows

_FAR = 0.02  # of an output, the most that is taken for rounding
_NEAR = 1e-6  # what kernels of one shape may differ by


def unlike(row: Tensor) -> Tensor:
    """A row (1, C, *S) like no other: the mirror image of `row` at half the contrast on a ramp.

    It is within its range, on its side of zero, and has another extreme, mean and spread, so that a model that looks at
    those of a batch gives itself away.
    """
    most = row.abs().amax() if row.numel() else row.new_ones(())
    ramp = torch.linspace(0, 1, row.shape[-1], dtype=row.dtype, device=row.device)
    return row.flip(-1) / 2 + ramp * torch.where(most.isfinite() & (most > 0), most / 4, 1)


@torch.no_grad()
def mixed_rows(
    model: Callable[[Tensor], Any], rows: Sequence[Tensor], alone: Sequence[Any] | None = None
) -> str | None:
    """Why a row's answer is not its own when another row runs beside it; None where it is.

    A model that answers the same row differently each time is not told apart from one whose rows mix: None.

    Args:
        model: any callable.
        rows: two (1, C, *S) that differ in range, mean and spread, or statistics of the batch would not show.
        alone: what it answers to each alone, where that is known.
    """

    def ask(*batch: Tensor) -> Any:
        return model(torch.cat(batch))

    if alone is None:
        alone = [ask(row) for row in rows]
        if difference(alone[0], ask(rows[0]), rows[0].dtype) is not None:
            return None
    try:
        together = ask(*rows)
        reason = _apart(alone, together, rows[0].dtype)
        if reason is None or _rounded(ask, rows, alone, together):
            return None
    except Exception as error:  # a forward that knows one row only may raise anything
        if out_of_memory(error):
            return None  # then no two rows will run together
        ask(rows[0])  # what fails for one row as well has nothing to do with how many there are
        return f"it fails where two rows run together ({first_line(error)})"
    return f"a row's answer changes when another row runs beside it ({reason})"


def mixing_of(plain: nn.Module, rows: list[Tensor], seen: Observation) -> str | None:
    """Why rows of this model's batches depend on each other; what is not even steady is not told apart from that."""
    if seen.unsteady is not None:
        return None
    with shadowed(plain):
        reason = mixed_rows(plain, rows, seen.outputs)
    wide = seen.wide() if reason is not None and rows[0].dtype is torch.float32 else None
    if wide is None:
        return reason
    try:  # where a model rounds its own output far, float64 tells rounding from rows that mix
        with shadowed(wide):
            return mixed_rows(wide, [row.double() for row in rows])
    except Exception:  # a forward may insist on its dtype
        return reason


def _rounded(ask: Callable[..., Any], rows: Sequence[Tensor], alone: Sequence[Any], together: Any) -> bool:
    """Whether rows differ from what they are alone by rounding: then a batch of two says the same beside any other row.

    Some networks round far, and of lists of boxes rounding alone changes how many there are.
    """
    lists = is_list_of_rows(together, 2)
    if not lists and _apart(alone, together, rows[0].dtype, _FAR) is not None:
        return False
    for row, one in enumerate(rows):
        beside = [together[row], ask(one, one)[row]] if lists else [_half(together, row), _half(ask(one, one), row)]
        if difference(beside[1], beside[0], one.dtype, _NEAR) is not None:
            return False
    return True


def _half(output: Any, row: int) -> list[Tensor]:
    """The first or second half of every tensor with two rows in front; what lies otherwise as a whole."""
    return [part.chunk(2)[row] if part.ndim and len(part) % 2 == 0 and len(part) else part for part in floats(output)]


def _apart(alone: Sequence[Any], together: Any, dtype: torch.dtype, tolerance: float | None = None) -> str | None:
    """In what rows that ran alone differ from the rows of one batch, or None.

    What has no rows, or another number of them, says nothing here: whoever reads scores from it refuses that.
    """
    lists = is_list_of_rows(together, 2)
    for row, one in enumerate(alone):
        own, beside = floats(one), floats(together[row] if lists else together)
        if lists and [part.shape for part in own] != [part.shape for part in beside]:
            return "it returns other shapes than for one row"
        pairs = [(a, b if lists else _own_part(b, a.shape, row)) for a, b in zip(own, beside, strict=False)]
        told = [pair for pair in pairs if pair[1] is not None]
        own, beside = [a for a, _ in told], [b for _, b in told]
        reason = difference(own, beside, dtype, tolerance) if told else None
        if reason is not None:
            return reason
    return None


def _own_part(part: Tensor, shape: torch.Size, row: int) -> Tensor | None:
    """What belongs to a row in a tensor of two, along whichever axis they lie; None where it holds no two.

    `shape` is that of one row alone.
    """
    for axis in range(part.ndim):
        size = part.shape[axis] // 2
        own = part.narrow(axis, row * size, size)
        if own.shape == shape or (size == 1 and own.squeeze(axis).shape == shape):
            return own.reshape(shape)
    return None
