"""What a call asks about, known while its recipe is made: a layer is chosen by what the score depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from xai_fast.core.detections import Detection
from xai_fast.core.objective import Objective
from xai_fast.core.prepared import widened
from xai_fast.core.scores import find_scores
from xai_fast.core.targets import ScoreTarget, Target


@dataclass(frozen=True)
class Asked:
    """What a layer is to matter for.

    Attributes:
        output: from the raw output to the scores of class targets; None: found.
        objective: of a target that is a function; None where class scores are meant, whichever they are.
        kind: the same for targets that differ in what they hold alone, such as one lambda made again and again.
        boxes: the target, where it is about what a detector finds. One box hangs on one level of a pyramid, the next on
            another, so what matters is whatever any of them depends on.
    """

    output: Callable[[Any], Tensor] | None = None
    objective: Objective | None = None
    kind: Any = None
    boxes: Detection | None = None

    def score(self, raw: Any) -> Tensor:
        """What depends on the layer: the target's score, or the class scores, or else all that is returned."""
        for attempt in (self._of_target, self._of_classes):
            try:
                if (score := attempt(raw)) is not None and score.requires_grad:
                    return score
            except (Exception, AssertionError):  # the user's function, on an output that may not be for it
                continue
        parts = [leaf for leaf in tree_leaves(raw) if isinstance(leaf, Tensor) and leaf.requires_grad]
        return torch.cat([part.float().flatten() for part in parts]) if parts else torch.zeros(1)

    def _of_target(self, raw: Any) -> Tensor | None:
        if self.boxes is not None:
            return self.boxes.all_found(widened(raw), 1)
        return None if self.objective is None else self.objective(widened(raw), torch.zeros(1, dtype=torch.long))

    def _of_classes(self, raw: Any) -> Tensor:
        return (self.output or find_scores)(raw)


_ASKED: ContextVar[Asked | None] = ContextVar("asked", default=None)


def current() -> Asked | None:
    """What the call at hand asks about; None outside of one."""
    return _ASKED.get()


@contextmanager
def asking(objective: Objective, target: Target, output: Callable[[Any], Tensor] | None) -> Iterator[None]:
    """What is asked about while the block runs."""
    by_classes = not callable(target) or isinstance(target, Tensor | ScoreTarget)
    kind = None if by_classes else getattr(target, "__code__", type(target))
    boxes = target if isinstance(target, Detection) else None
    token = _ASKED.set(Asked(output, None if by_classes else objective, kind, boxes))
    try:
        yield
    finally:
        _ASKED.reset(token)
