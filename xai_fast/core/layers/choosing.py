"""The layer that `layer="auto"` means: the deepest map of positions on which the score depends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .answering import CHANNELS_FIRST, coordinates, reading_by_kind, reading_of
from .calls import Seen, recorded
from .grids import Axes, Reading, Tokens

# Their output repeats or pools what came before, so a map read there shows nothing that the layer before does not.
_PASSED_OVER = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Flatten),
    *(getattr(nn, f"Adaptive{kind}Pool{axes}d") for kind in ("Avg", "Max") for axes in (1, 2, 3)),
)
_ATTENTION = re.compile(r"attention|attn|mha", re.IGNORECASE)
_HEAD = re.compile(r"head|predictor|detect", re.IGNORECASE)
_AT_ONCE = 6  # candidates whose answers are measured in one run


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        layers: names, more than one where a detector reads several maps.
        readings: of each.
    """

    layers: tuple[str, ...]
    readings: tuple[Reading, ...]


def choose_layers(module: nn.Module, example: Tensor, score_of: Callable[[Any], Tensor], *, ours: bool) -> Choice:
    """The deepest layer that runs once, that the score depends on, and whose positions answer to those of the input.

    A block is taken before what is inside it, a map of features before the class scores that are made of it, and a
    layer that runs once before one call of several. Nothing inside attention is taken. In a transformer that reads a
    class token that is the last block's input norm, because the patches of its output reach nothing. Where several maps
    of a pyramid are read, it is those on which the score depends.

    Costs one forward and one backward of one row, and 1 + 4 rows per spatial axis for every six candidates.

    Args:
        module: our own copy, or the caller's model under guard.
        example: one row, in the module's dtype.
        score_of: from the raw output to what the layer is to matter for, a tensor of any shape.
        ours: whether it is a copy, whose weights may be changed.

    Raises:
        ValueError: no layer fits; names those that come near.
    """
    seen, scores, depends = recorded(module, example, score_of)
    if ours and not depends:
        _wake(module)
        seen, scores, depends = recorded(module, example, score_of)
    inside = _small_parts(module, _ATTENTION, itself=False)  # queries, keys and values are no map of the block's
    usual = _usual(module, seen, len(example), inside, boxes=scores is None, depends=depends)
    kinds = {path for path, part in module.named_modules() if isinstance(part, CHANNELS_FIRST)}
    plain = {tuple(one.activation.shape[1:]) for one in seen if one.path in kinds}
    stream = [one for one in seen if one.path not in inside and one.activation.ndim == 3]
    widths = {one.activation.shape[1]: one.activation.shape[2] for one in stream}
    fallback: Choice | None = None
    classes = 0
    for some in ([one for one in usual if one.calls == 1], [one for one in usual if one.calls > 1]):
        for one, reading in _answering(module, some[::-1], example, plain):
            if not _sees_positions(one, reading, depends=depends):
                continue
            if isinstance(reading, Tokens) and one.activation.shape[2] != widths[one.activation.shape[1]]:
                continue  # inside a block tokens are wider; the stream has one width
            choice = Choice((one.name,), (reading,))
            width = reading(one.activation).shape[1]
            if width == classes or _is_class_scores(one, reading, scores):
                # What they are rectified or scaled from are scores as well.
                fallback, classes = fallback or choice, width
                continue
            return _pyramid(module, one, usual, example, plain, depends=depends) or choice
    if fallback is not None:
        return fallback
    near = ", ".join(f"{one.name!r} {tuple(one.activation.shape[1:])}" for one in (usual or seen)[:-7:-1])
    raise ValueError(
        '`layer` "auto" found no layer that keeps the axes of the input and on which the score depends; '
        f"name one{f': the deepest are {near}' if near else ''}"
    )


def _usual(
    module: nn.Module, seen: list[Seen], rows: int, inside: set[str], *, boxes: bool, depends: bool
) -> list[Seen]:
    """The calls that may have made a map of features."""
    passed_over = {path for path, part in module.named_modules() if isinstance(part, _PASSED_OVER)}
    found = [
        one for one in seen
        if one.path not in inside | passed_over and one.activation.ndim >= 3 and len(one.activation) == rows
        and (_matters(one) or not depends)
    ]  # fmt: skip
    # What returns boxes makes them in heads, level by level; the features are what those read.
    heads = _small_parts(module, _HEAD, itself=True) if boxes else set()
    return [one for one in found if one.path not in heads] or found


def _matters(one: Seen) -> bool:
    return one.gradient is not None and bool(one.gradient.count_nonzero())


@torch.no_grad()
def _wake(module: nn.Module) -> None:
    """Gives weights that are zero throughout, as a fresh head's or residual branch's may be, some value."""
    generator = torch.Generator().manual_seed(0)
    for weight in module.parameters():
        if weight.is_floating_point() and not weight.count_nonzero():
            weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))


def _small_parts(module: nn.Module, named: re.Pattern[str], *, itself: bool) -> set[str]:
    """Paths of what lies inside modules whose class is named so and that hold less than half of all weights.

    Args:
        module: the model.
        named: matches names of classes.
        itself: whether such modules themselves are among them.
    """
    whole = sum(weight.numel() for weight in module.parameters())
    inside: set[str] = set()
    for path, part in module.named_modules():
        if path and named.search(type(part).__name__) and sum(w.numel() for w in part.parameters()) < whole / 2:
            inside |= {f"{path}.{child}" for child, _ in part.named_modules() if child}
            inside |= {path} if itself else set()
    return inside


def _answering(
    module: nn.Module, some: Sequence[Seen], example: Tensor, plain: set[tuple[int, ...]]
) -> Iterator[tuple[Seen, Reading]]:
    """The calls whose positions answer to the input, in the order given, measured a few at a time."""
    for start in range(0, len(some), _AT_ONCE):
        few = some[start : start + _AT_ONCE]
        names = {one.name: one for one in few}
        found = coordinates(module, tuple(names), example)
        around: dict[str, Tensor] | None = None
        for name, one in names.items():
            reading = reading_of(found[name]) if name in found else None
            if reading is None and _could_be_map(one, example):
                if around is None:
                    around = coordinates(module, tuple(names), example, around=True)
                reading = reading_of(around[name]) if name in around else None
                reading = reading or reading_by_kind(one.activation.shape[1:], plain)
            if reading is not None:
                yield one, reading


def _could_be_map(one: Seen, example: Tensor) -> bool:
    return one.activation.ndim == example.ndim and one.activation.shape[2:].numel() > 1


def _sees_positions(one: Seen, reading: Reading, *, depends: bool) -> bool:
    """Whether there are several positions, and the score depends on what stands there."""
    grid = reading(one.activation)
    if grid.shape[2:].numel() < 2:
        return False
    if not depends or one.gradient is None:
        return not depends
    return bool(reading(one.gradient).count_nonzero())


def _is_class_scores(one: Seen, reading: Reading, scores: Tensor | None) -> bool:
    """Whether a map holds the scores of the output themselves, per position."""
    if scores is None or not isinstance(reading, Axes):
        return False
    grid = reading(one.activation)
    if scores.ndim > 2:
        # As they come, resized, or flattened.
        alike = scores.ndim == grid.ndim or scores.shape[2:].numel() == grid.shape[2:].numel()
        return scores.shape[1] == grid.shape[1] and alike
    if scores.shape != grid.shape[:2]:
        return False
    mean = grid.flatten(2).mean(2)
    return bool((mean - scores).abs().max() <= 1e-3 * scores.abs().max())


def _pyramid(
    module: nn.Module,
    one: Seen,
    usual: Sequence[Seen],
    example: Tensor,
    plain: set[tuple[int, ...]],
    *,
    depends: bool,
) -> Choice | None:
    """The maps that a module returns together, each by the layer that makes it; None where it returns one."""
    makers = [
        other for path in dict.fromkeys(one.parts) for other in usual
        if other.path == path and other.calls == 1 and other.activation.ndim == one.activation.ndim
    ]  # fmt: skip
    if len(makers) < 2:
        return None
    fitting = [
        (other, reading) for other, reading in _answering(module, makers, example, plain)
        if _sees_positions(other, reading, depends=depends)
    ]  # fmt: skip
    if len(fitting) < 2:
        return None
    return Choice(tuple(other.name for other, _ in fitting), tuple(reading for _, reading in fitting))
