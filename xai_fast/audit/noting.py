"""What one pass of methods says, noted in the answers about its images."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from xai_fast.engine.finite import NonFiniteError

from .answers import Answer


def keep(answers: list[Answer], label: str, maps: Tensor, evaluations: Tensor) -> None:
    """Maps (N, h, w) of a method.

    Raises:
        NonFiniteError: some are not finite; names them.
    """
    if not (finite := maps.flatten(1).isfinite().all(1)).all():
        raise NonFiniteError((~finite).nonzero()[:, 0].tolist(), maps)
    for answer, one, rows in zip(answers, maps.float().cpu().numpy(), evaluations.tolist(), strict=True):
        answer.maps[label], answer.evaluations[label] = one, rows


def note(answers: list[Answer], outputs: Tensor | None, target: Any) -> Any:
    """What the first run with class scores, and with classes that were explained, says of them."""
    classes = target.tolist() if isinstance(target, Tensor) else None
    for n, answer in enumerate(answers):
        if answer.target is None and classes is not None:
            answer.target = classes[n]
        if answer.outputs is None and outputs is not None:
            answer.outputs = outputs[n].float().cpu().numpy()
    return target
