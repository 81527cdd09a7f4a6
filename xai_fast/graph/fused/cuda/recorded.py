"""A program that was recorded for the sizes that come again, and is repeated as a whole where that is faster.

Small forwards on a GPU wait for Python and for one launch after the other. A recording runs the same kernels on memory
of its own: inputs are copied there, results copied out.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.graph.capture import is_own_leaf
from xai_fast.graph.processor import said
from xai_fast.graph.program import Program
from xai_fast.graph.reasons import first_line
from xai_fast.graph.steps import Graph, Step, last_uses
from xai_fast.graph.timed import decided

from .clock import flags, seconds
from .recorder import Recorder

_LARGEST = 256 << 20  # bytes alive at once, beyond which kernels are long enough to hide their launches
_MOST = 4  # recordings of one program
_MOST_SIZES = 64  # that are remembered
_TRIED = 4  # when a size comes for so many times
_WORTH_REPEATING = 0.95  # of the time of one launch after the other
_QUESTION = "sent to the device"
_AS_ONE, _APART = "as one", "step by step"
_CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5}  # the same kernels run; some add up in any order
_ASKING = {"item", "tolist", "nonzero", "cpu", "numpy", "unique", "masked_select", "bincount", "repeat_interleave"}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_PLAIN = ("torch", "torchvision", "timm", "operator", "_operator", "math", "builtins", "xai_fast")

Key = tuple[object, ...]


@dataclass(eq=False)
class Recording:
    """One recorded run.

    Attributes:
        given: by value, the memory that inputs are copied to.
        made: by value, the memory that results are written to.
        repeat: runs it again.
        beyond: bytes that it takes beside those, between its steps.
    """

    given: dict[int, Tensor]
    made: dict[int, Tensor]
    repeat: Any
    beyond: int

    def __call__(self, given: Mapping[int, Tensor]) -> dict[int, Any]:
        """The results for other inputs, in memory of their own."""
        for number, memory in self.given.items():
            memory.copy_(given[number])
        self.repeat()
        return {number: value.clone(memory_format=torch.preserve_format) for number, value in self.made.items()}


class Recorded:
    """Runs a program, from a recording where there is one for inputs of these sizes.

    Args:
        program: on one device.
        graph: of which it is a part, recorded.

    Attributes:
        steps: of the program.
        reads: of the program.
        grown: how many recordings were made.
        refused: why nothing, or the last size that was tried, is not recorded; "" where nothing speaks against it.
    """

    def __init__(self, program: Program, graph: Graph) -> None:
        self.steps, self.reads = program.steps, program.reads
        self._program, self.grown = program, 0
        self.refused = refusal(program.steps) or ""
        self._row_bytes = alive(program.steps, graph)
        self._met: dict[Key, int | str] = {}
        self._recordings: dict[Key, Recording] = {}
        self._recorder: Recorder | None = None
        self._never = bool(self.refused) or said().recorded is False

    def run(self, given: Mapping[int, Any]) -> dict[int, Any]:
        """See `Program`."""
        if self._never or torch.is_grad_enabled() or (key := self._key(given)) is None:
            return self._program.run(given)
        recording = self._recordings.get(key) or self._perhaps(key, given)
        if recording is None:
            return self._program.run(given)
        self._order()
        return recording(given)

    def _key(self, given: Mapping[int, Any]) -> Key | None:
        """What tells apart inputs that need recordings of their own; None for what is not recorded."""
        parts: list[object] = []
        for number, value in given.items():
            if not isinstance(value, Tensor) or not value.is_cuda or value.ndim == 0:
                return None
            if value.numel() == 0 or len(value) * self._row_bytes > _LARGEST:
                return None
            parts.append((number, tuple(value.shape), value.stride(), value.dtype, value.device))
        return None if not parts or torch.cuda.is_current_stream_capturing() else (*parts, flags())

    def _perhaps(self, key: Key, given: Mapping[int, Any]) -> Recording | None:
        """A recording for these sizes, made now where they have come often enough and it is faster."""
        met = self._met.get(key, 0)
        if met == _APART:
            return None
        if isinstance(met, int) and met + 1 < _TRIED:
            self._remember(key, met + 1)
            return None
        return self._tried(key, given)

    def _tried(self, key: Key, given: Mapping[int, Any]) -> Recording | None:
        """A recording for these sizes, unless it is refused or no faster."""
        made: list[Recording] = []

        def record() -> str:
            recording = self._made(given)
            if isinstance(recording, str):
                self.refused = recording
                return f"{_APART}: {recording}"
            made.append(recording)
            return _AS_ONE

        def find_out() -> str:
            answer = record()
            return answer if not made or self._pays(made[0], given) else _APART

        row = next(iter(given.values()))
        case = f"{len(row)} rows of {tuple(row.shape[1:])}, {row.dtype}, {len(self.steps)} steps"
        answer = _AS_ONE if said().recorded else decided(_QUESTION, case, find_out, lambda: _APART)
        if answer == _AS_ONE and not made:  # it was said, or found out by another program or run
            answer = record()
        if answer != _AS_ONE:
            self._remember(key, _APART)
            return None
        self._remember(key, _AS_ONE)
        while len(self._recordings) >= _MOST:
            first = next(iter(self._recordings))
            del self._recordings[first]
            self._met.pop(first, None)  # it has to come often once more
        self._recordings[key] = made[0]
        self.grown += 1
        return made[0]

    def _remember(self, key: Key, found: int | str) -> None:
        self._met.pop(key, None)
        while len(self._met) >= _MOST_SIZES:
            self._met.pop(next(iter(self._met)))
        self._met[key] = found

    def _made(self, given: Mapping[int, Tensor]) -> Recording | str:
        """A recording that gives what the program gives, or why there is none."""
        first = next(iter(given.values()))
        memory = {number: torch.empty_like(value).copy_(value) for number, value in given.items()}
        try:
            self._recorder = self._recorder or Recorder(first.device)
            self._order()
            repeat, made = self._recorder.record(lambda: self._program.run(memory))
            if not all(isinstance(value, Tensor) and value.device == first.device for value in made.values()):
                return "what it returns is not only tensors of the device"
            recording = Recording(memory, made, repeat, len(first) * self._row_bytes)
            return self._differs(recording, given) or recording
        except Exception as error:  # what cannot be recorded may raise anything
            return f"it cannot be recorded ({first_line(error)})"

    def _differs(self, recording: Recording, given: Mapping[int, Tensor]) -> str | None:
        """In what repetitions differ from the program: on these inputs, on others, and on these once more."""
        others = {n: (v.flip(0) / 2 if v.is_floating_point() else v.flip(0)) for n, v in given.items()}
        for inputs in (given, others, given):
            own = {n: value.clone(memory_format=torch.preserve_format) for n, value in inputs.items()}
            truth, found = self._program.run(own), recording(inputs)
            if not all(_same(truth[number], value) for number, value in found.items()):
                return "its recording gives other numbers"
        return None

    def _pays(self, recording: Recording, given: Mapping[int, Tensor]) -> bool:
        device = next(iter(given.values())).device
        own = {n: value.clone(memory_format=torch.preserve_format) for n, value in given.items()}
        repeated = seconds(lambda: recording(given), device)
        return repeated < _WORTH_REPEATING * seconds(lambda: self._program.run(own), device)

    def _order(self) -> None:
        if self._recorder is not None:
            self._recorder.order()


def refusal(steps: Sequence[Step]) -> str | None:
    """Why steps cannot be repeated without Python; None where nothing is known to speak against it."""
    for step in steps:
        call, name = step.call, getattr(step.call, "__name__", "")
        if isinstance(call, nn.Module):
            if any(getattr(part, kind) for part in call.modules() for kind in _HOOKS):
                return f"hooks fire where {step.label!r} is called"
            if is_own_leaf(call) or isinstance(call, torch.jit.ScriptModule):
                return f"{step.label!r} may do more than compute"
        elif isinstance(call, types.FunctionType) and (call.__module__ or "").partition(".")[0] not in _PLAIN:
            return f"{step.label!r} may do more than compute"
        elif name in _ASKING:
            return f"{step.label!r} asks for numbers"
    return None


def alive(steps: Sequence[Step], graph: Graph) -> int:
    """The most bytes of a row that values take at once while steps run one after the other."""
    last = last_uses(steps, ())
    sizes: dict[int, int] = {}
    members: dict[int, set[int]] = {}
    most = 0
    for position, step in enumerate(steps):
        for number in (*step.reads, step.makes):
            trait = graph.traits.get(number)
            if trait is not None and number not in graph.fixed:
                sizes[trait.group] = max(sizes.get(trait.group, 0), trait.size)
                members.setdefault(trait.group, set()).add(number)
        most = max(most, sum(sizes.values()))
        for group, numbers in list(members.items()):
            if all(last.get(number, -1) <= position for number in numbers):
                del sizes[group], members[group]
    return most


def _same(truth: Any, found: Tensor) -> bool:
    if not isinstance(truth, Tensor) or truth.shape != found.shape or truth.dtype is not found.dtype:
        return False
    if not found.is_floating_point():
        return torch.equal(truth, found)
    ordinary = truth[truth.isfinite()].abs()
    largest = float(ordinary.max()) if ordinary.numel() else 0.0
    close = _CLOSE.get(found.dtype, 1e-2)
    return torch.allclose(truth, found, rtol=close, atol=close * largest, equal_nan=True)
