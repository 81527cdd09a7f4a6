"""A captured model: a list of steps in the order of execution, each reading and making numbered values."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .operation import Kind

INPUT = 0  # the value that is the model's input


@dataclass(frozen=True)
class Value:
    """A value that a step reads, in the place where the argument stands."""

    number: int


@dataclass(frozen=True)
class Returned:
    """What a module returned: the value, and the last value that was made before it returned.

    Between the two the module may have written into the value in place.
    """

    value: int
    until: int


@dataclass(eq=False)
class Step:
    """One call of the model's forward.

    Attributes:
        makes: number of the value that the call returns.
        call: what is called: a module, a function, or a stand-in for a method.
        args: positional arguments, with `Value`s for what was computed before.
        kwargs: keyword arguments, likewise.
        operation: the canonical name of what is done, the same for a module, a function and a method; "" if unknown.
        kind: how it treats positions, channels and rows.
        label: for messages.
    """

    makes: int
    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    operation: str
    kind: Kind
    label: str
    reads: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.reads = tuple(dict.fromkeys(v.number for v in values_in((self.args, dict(self.kwargs)))))
        # Nearly every call reads its values as plain positional arguments; only cat and its like nest them in a list.
        self._slots = tuple((i, arg.number) for i, arg in enumerate(self.args) if isinstance(arg, Value))
        self._flat = len(self.reads) == len({number for _, number in self._slots}) and not any(
            values_in([arg for arg in self.args if not isinstance(arg, Value)]) + values_in(dict(self.kwargs))
        )

    @property
    def module(self) -> nn.Module | None:
        """The module, where one is called."""
        return self.call if isinstance(self.call, nn.Module) else None

    def run(self, values: Mapping[int, Any] | Sequence[Any]) -> Any:
        """The call, on the values computed so far."""
        if self._flat:
            args = list(self.args)
            for position, number in self._slots:
                args[position] = values[number]
            return self.call(*args, **self.kwargs)
        return self.call(*filled(self.args, values), **filled(dict(self.kwargs), values))


def mapped(function: Callable[[Any], Any], structure: Any) -> Any:
    """A nest of tuples, lists, dicts, slices and dataclasses of the user, with `function` of each leaf in its place."""

    def each(leaf: Any) -> Any:
        if isinstance(leaf, slice):
            return slice(*map(function, (leaf.start, leaf.stop, leaf.step)))
        if not _holds_fields(leaf):
            return function(leaf)
        made = copy.copy(leaf)
        for name, part in vars(leaf).items():
            object.__setattr__(made, name, mapped(function, part))  # also where it is frozen
        return made

    return tree_map(each, structure, is_leaf=lambda part: isinstance(part, slice))


def _holds_fields(leaf: Any) -> bool:
    own = is_dataclass(leaf) and not isinstance(leaf, type | Value | nn.Module)
    return own and hasattr(leaf, "__dict__")


_LEAVES = frozenset((int, float, bool, str, type(None), torch.dtype, torch.device, Tensor, nn.Parameter))


def values_in(structure: Any) -> list[Value]:
    """Every `Value` in a nest of tuples, lists, dicts, slices and dataclasses."""
    kind = type(structure)
    if kind is Value or kind in _LEAVES:
        return [structure] if kind is Value else []
    if kind is tuple or kind is list:  # nearly all there is, and a walk over anything takes ten times as long
        return [value for part in structure for value in values_in(part)]
    if kind is dict:
        return [value for part in structure.values() for value in values_in(part)]
    found: list[Value] = []
    mapped(lambda leaf: found.append(leaf) if isinstance(leaf, Value) else None, structure)
    return found


def filled(structure: Any, values: Mapping[int, Any] | Sequence[Any]) -> Any:
    """The structure with every `Value` replaced by what it stands for."""
    kind = type(structure)
    if kind is Value:
        return values[structure.number]
    if kind in _LEAVES:
        return structure
    if kind is tuple or kind is list:  # as in `values_in`
        return kind(filled(part, values) for part in structure)
    if kind is dict:
        return {key: filled(part, values) for key, part in structure.items()}
    return mapped(lambda leaf: values[leaf.number] if isinstance(leaf, Value) else leaf, structure)


def renamed(structure: Any, old: int, new: int) -> Any:
    """The structure with another value in the place of one."""
    return mapped(lambda leaf: Value(new) if isinstance(leaf, Value) and leaf.number == old else leaf, structure)


def reading(step: Step, old: int, new: int) -> Step:
    """The step reading another value in the place of one."""
    return replace(step, args=renamed(step.args, old, new), kwargs=renamed(dict(step.kwargs), old, new))


@dataclass(frozen=True)
class Trait:
    """What a recorded run showed of one value.

    Attributes:
        shape: of the tensor for one row; None where the value is no tensor.
        batched: how many leading entries belong to a row; 0 where the value is the same for every number of rows,
            None where rows cannot be told apart in it.
        dtype: of the tensor.
        group: number shared by all values that lie in the same memory.
        size: bytes per row.
        place: offset and strides in that memory when two rows ran: equal where two values are one tensor.
    """

    shape: tuple[int, ...] | None
    batched: int | None
    dtype: torch.dtype | None
    group: int
    size: int
    place: tuple[int, ...] = ()


@dataclass(eq=False)
class Graph:
    """A module's forward as steps.

    Attributes:
        steps: in order of execution.
        output: what the forward returns, with `Value`s.
        anchors: per module path, what its calls returned, one entry per call; None where that is no tensor of its own.
        constants: parameters, buffers and other attributes that steps read: value to (owner, name).
        gradient_gaps: whether a part of the forward ran without gradients, so that autograd must not use these steps.
        traits: per value, once recorded.
        known: what is no tensor and the same for every number of rows: extents, lengths; once recorded.
        writes: per step, by what it makes: the values into which it writes in place.
        fixed: values that are known before the first step: constants, once bound.
    """

    steps: list[Step]
    output: Any
    anchors: dict[str, list[Returned | None]]
    constants: dict[int, tuple[weakref.ref[nn.Module], str]]
    gradient_gaps: bool = False
    traits: dict[int, Trait] = field(default_factory=dict)
    known: dict[int, Any] = field(default_factory=dict)
    writes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    fixed: dict[int, Any] = field(default_factory=dict)

    @property
    def results(self) -> tuple[int, ...]:
        """The values that the output is made of."""
        return tuple(dict.fromkeys(value.number for value in values_in(self.output)))

    def returned_by(self, paths: Iterable[str]) -> set[int]:
        """The values that the modules at these paths return."""
        return {found.value for path in paths for found in self.anchors.get(path, ()) if found is not None}

    def bind(self) -> None:
        """Looks the constants up, after the last change of dtype or layout."""
        for number, (owner, name) in self.constants.items():
            module = owner()
            assert module is not None
            self.fixed[number] = getattr(module, name)

    def step_of(self, value: int) -> Step | None:
        """The step that makes a value; None for the input and for constants."""
        return next((step for step in self.steps if step.makes == value), None)

    @torch.no_grad()
    def record(self, two_rows: Tensor) -> tuple[Any, Any]:
        """Runs one row, then two, and notes what every value is like; returns the outputs of both runs."""
        self.bind()
        first, output = self._shapes(two_rows[:1].clone(memory_format=torch.preserve_format))
        values = self._run_all(two_rows.clone(memory_format=torch.preserve_format))
        groups: dict[int, int] = {}
        for number, value in values.items():
            shape = first[number]
            if not isinstance(value, Tensor):
                same = _equal(shape, value)
                leaves = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
                # A tuple of tensors has no trait of its own; what is taken out of it has.
                group = groups.setdefault(leaves[0].untyped_storage().data_ptr(), len(groups)) if leaves else -1
                self.traits[number] = Trait(None, 0 if same and not leaves else None, None, group, 0)
                if same and not leaves:
                    self.known[number] = value
                continue
            assert isinstance(shape, torch.Size)
            group = groups.setdefault(value.untyped_storage().data_ptr(), len(groups))
            size = value.numel() * value.element_size() // 2
            batched, place = _batched(shape, value.shape), (int(value.storage_offset()), *value.stride())
            self.traits[number] = Trait(tuple(shape), batched, value.dtype, group, size, place)
        return output, filled(self.output, values)

    def fresh(self) -> Graph:
        """The same steps, to be recorded on inputs of another shape."""
        return Graph(
            list(self.steps), self.output, self.anchors, self.constants, self.gradient_gaps,
            fixed=dict(self.fixed),
        )  # fmt: skip

    def _run_all(self, batch: Tensor) -> dict[int, Any]:
        """Every value of one run, all alive at once, noting who writes into what."""
        values: dict[int, Any] = {INPUT: batch, **self.fixed}
        for step in self.steps:
            before = {n: values[n]._version for n in step.reads if isinstance(values[n], Tensor)}
            values[step.makes] = step.run(values)
            self.writes[step.makes] = tuple(n for n, version in before.items() if values[n]._version != version)
        return values

    def _shapes(self, batch: Tensor) -> tuple[dict[int, Any], Any]:
        """The shape of every tensor of one run and every other value itself, and the output; nothing else is kept."""
        values: dict[int, Any] = {INPUT: batch, **self.fixed}
        shapes = {number: _shape(value) for number, value in values.items()}
        last = last_uses(self.steps, self.results)
        for position, step in enumerate(self.steps):
            value = values[step.makes] = step.run(values)
            shapes[step.makes] = _shape(value)
            for number in (*step.reads, step.makes):
                if last.get(number, -1) <= position and number not in self.fixed:
                    values.pop(number, None)
        return shapes, filled(self.output, values)


def last_uses(steps: Sequence[Step], kept: Iterable[int]) -> dict[int, int]:
    """The position of the last step that reads each value; values that are kept are used after the end."""
    last = {number: position for position, step in enumerate(steps) for number in step.reads}
    last.update(dict.fromkeys(kept, len(steps)))
    return last


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, Tensor) else value


def _equal(left: Any, right: Any) -> bool:
    try:
        return bool(left == right)
    except Exception:  # values of the user's own classes may refuse to be compared
        return False


def _batched(one: torch.Size, two: torch.Size) -> int | None:
    if one == two:
        return 0
    same_rank = len(one) == len(two) and one[1:] == two[1:]
    return one[0] if same_rank and two[0] == 2 * one[0] else None
