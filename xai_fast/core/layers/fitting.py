"""What is asked of a call before its layer is chosen, and which modules are only parts of others."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor, nn

from .calls import Seen
from .grids import Axes, Reading


def small_parts(module: nn.Module, named: re.Pattern[str], *, itself: bool) -> set[str]:
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


def could_be_map(one: Seen, example: Tensor) -> bool:
    """Whether it keeps the axes of the input, several cells along them."""
    return len(one.shape) == example.ndim and one.shape[2:].numel() > 1


def sees_positions(one: Seen, reading: Reading, *, depends: bool) -> bool:
    """Whether there are several positions, and the score depends on what stands there."""
    grid = reading(one.activation)
    if grid.shape[2:].numel() < 2:
        return False
    if not depends or one.gradient is None:
        return not depends
    return bool(reading(one.gradient).count_nonzero())


def is_class_scores(one: Seen, reading: Reading, scores: Tensor | None) -> bool:
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


def are_features(scores: Tensor | None, one: Seen, before: Sequence[Seen]) -> bool:
    """Whether what looks like a map of class scores is the stream of a network that returns its features, pooled.

    Class scores are made once, at the end; a stream has their width and extents before as well.

    Args:
        scores: of the output.
        one: the call that returned such a map.
        before: calls ahead of others that returned another width.
    """
    return scores is not None and scores.ndim == 2 and any(other.shape == one.shape for other in before)
