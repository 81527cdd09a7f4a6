"""What this processor is good at: found out where it is needed, by timing or trying, unless it is said here.

Each answer sends a model down one of two ways whose numbers agree up to rounding. Tests say both, so that neither goes
untested on a machine that never takes it; kernels of other instruction sets are `ops.instructions`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Processor:
    """Answers that replace what would be found out; None where it is to be found out.

    Attributes:
        halves: convolutions are faster in half precision than in single.
        fused: steps are fused where an implementation runs them; True does not make one.
        implementation: the name of the only implementation of fused steps that may run them (see `graph.fused`).
        packed: linear layers are faster with prepacked weights.
        minimal: 3x3 convolutions run by minimal filtering, by the kernel or, where there is none, its reference.
        bottlenecks: a depthwise convolution and the pointwise ones around it run as one, by the kernel or, where there
            is none, its reference.
        joined: on GPUs, convolution, bias, sum and ReLU are faster in as few kernels as are right.
        recorded: on GPUs, forwards are recorded and repeated as a whole; False leaves every launch to Python.
    """

    halves: bool | None = None
    fused: bool | None = None
    implementation: str | None = None
    packed: bool | None = None
    minimal: bool | None = None
    bottlenecks: bool | None = None
    joined: bool | None = None
    recorded: bool | None = None


_said = Processor()


def said() -> Processor:
    """The answers in force."""
    return _said


@contextmanager
def assuming(**answers: bool | str) -> Iterator[None]:
    """Puts answers in force, in all threads: for tests. Models that were prepared before keep what they are.

    Raises:
        TypeError: there is no such question.
    """
    global _said
    before = _said
    _said = replace(before, **answers)  # type: ignore[arg-type]
    try:
        yield
    finally:
        _said = before
