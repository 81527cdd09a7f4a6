"""What the caller's model answers, and whether something that we made of it answers the same."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .copies import copied
from .draws import drawn_by
from .hooks import on_all_modules, shadowed
from .snapshot import Path, Snapshot

_FORWARD_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
# How far folding and fusion may move an output, as a share of its largest magnitude, before it is taken for a mistake.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
_TIMES = 4  # as much further from float64 than the model's own answer may be
_ILL = 1e-2  # where rounding moves an output by more, nothing is told from it
_DEEPEST = 4  # objects inside objects in which an output's tensors are looked for
_TORCH_STATE = {"_parameters", "_buffers", "_modules", "training", "forward"}


@dataclass
class Footprint:
    """What one row of a given input shape costs in memory, in bytes of activations."""

    largest: int
    total: int


@dataclass(frozen=True)
class Observation:
    """A model's answers to two rows, asked one by one, and what asking did.

    Attributes:
        outputs: raw, one per row.
        footprint: of a row.
        unsteady: why the forward is more than a function of its input, or None.
        draws: the global random generators that it draws from.
        restless: where in its Python attributes it leaves something else on every call.
        asked: our own copy that answered, and the rows.
    """

    outputs: tuple[Any, ...]
    footprint: Footprint
    unsteady: str | None
    draws: set[str]
    restless: frozenset[Path]
    asked: tuple[nn.Module, Sequence[Tensor]]

    def differs(self, row: int, answer: Any, dtype: torch.dtype) -> str | None:
        """Why `answer` is not what the model says to one of the rows, up to rounding; None where it is.

        Where rounding moves the model's own output as far, that in float64 tells which of the two is nearer.
        """
        reason = difference(self.outputs[row], answer, dtype)
        if reason is None or dtype is not torch.float32 or self._exact is None:
            return reason
        far, own = distance(self._exact[row], answer), distance(self._exact[row], self.outputs[row])
        return None if far <= _TIMES * own <= _TIMES * _ILL else reason

    @functools.cached_property
    def _exact(self) -> tuple[Any, ...] | None:
        """The answers in float64; None where it has none."""
        wide = self.wide()
        if wide is None:
            return None
        try:
            with torch.no_grad(), shadowed(wide):
                return tuple(wide(row.double()) for row in self.asked[1])
        except Exception:  # a forward may insist on its dtype
            return None

    def wide(self) -> nn.Module | None:
        """A copy in float64; None where there can be none."""
        try:
            return copy.deepcopy(self.asked[0]).double()
        except Exception:  # quantised parts have no other dtype, and memory may not hold it twice
            return None


@torch.no_grad()
def observe(model: nn.Module, rows: Sequence[Tensor]) -> Observation:
    """Runs `model`, our own copy, on each of `rows` (1, C, *S); what the user's hooks collect is let go."""
    sizes: list[int] = []
    before = _python_state(model)

    def ask() -> tuple[tuple[Any, ...], frozenset[Path]]:
        sizes.clear()
        return _one_by_one(model, rows)

    with shadowed(model), _measuring(model, sizes):
        (outputs, restless), draws = drawn_by(ask)
    own = rows[0].numel() * rows[0].element_size()
    footprint = Footprint(max([own, *sizes]), own + sum(sizes) // len(rows))
    return Observation(outputs, footprint, _unsteady(model, before, draws), draws, restless, (model, rows))


def settled(plain: nn.Module, model: nn.Module, rows: list[Tensor]) -> Observation:
    """What `plain` answers; once a forward has kept what it works out whatever the input, it is steady."""
    seen = observe(plain, rows)
    if seen.unsteady is None:
        return seen
    again, backwards = observe(plain, rows), observe(copied(model), rows[::-1])
    alike = all(
        difference(truth, answer, rows[0].dtype) is None
        for other in (again.outputs, backwards.outputs[::-1])
        for truth, answer in zip(seen.outputs, other, strict=True)
    )
    return again if alike else seen


def _one_by_one(model: nn.Module, rows: Sequence[Tensor]) -> tuple[tuple[Any, ...], frozenset[Path]]:
    """The outputs for rows of which two together may not fit into memory, and what every one of the calls changed."""
    outputs: list[Any] = []
    changed: frozenset[Path] | None = None
    for row in rows:
        before = Snapshot(model) if changed is None or changed else None  # where one call changed nothing, not all do
        outputs.append(model(row.clone(memory_format=torch.preserve_format)))
        if before is not None:
            found = before.changes(model)
            changed = found if changed is None else changed & found
    return tuple(outputs), changed or frozenset()


def difference(truth: Any, answer: Any, dtype: torch.dtype, tolerance: float | None = None) -> str | None:
    """Why `answer` is not what `truth` says, up to the rounding of `dtype` or a tolerance; None where it is."""
    tolerance = TOLERANCE.get(dtype, 1e-4) if tolerance is None else tolerance
    left, right = floats(truth), floats(answer)
    if not left:
        return "its output holds no tensor by which it could be checked"
    if len(left) != len(right) or any(a.shape != b.shape for a, b in zip(left, right, strict=True)):
        return "it returns another structure than the model"
    for a, b in zip(left, right, strict=True):
        a, b = a.double(), b.double()
        finite = a.isfinite()
        error = a.new_zeros(())
        if finite.any():
            error = (a - b)[finite].abs().amax() / a[finite].abs().amax().clamp_min(1e-30)
        if not torch.equal(finite, b.isfinite()) or not error <= tolerance:
            return f"it moves the output by {float(error):.1e} of its largest value"
    return None


def distance(truth: Any, answer: Any) -> float:
    """How far an answer is from the truth, as a share of its largest magnitude; infinite where they do not compare."""
    pairs = list(zip(floats(truth), floats(answer), strict=False))
    if len(floats(truth)) != len(floats(answer)) or any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    far = [(a - b).abs().amax() / a.abs().amax().clamp_min(1e-30) for a, b in pairs if a.numel()]
    return max((float(part.nan_to_num(float("inf"))) for part in far), default=float("inf"))


def row_of(output: Any, row: int, rows: int) -> list[Tensor]:
    """The floating tensors of a raw output for one of several rows; what has no rows stays whole."""
    if is_list_of_rows(output, rows):
        return floats(output[row])
    return [part[row : row + 1] if part.ndim and len(part) == rows else part for part in floats(output)]


def is_list_of_rows(output: Any, rows: int) -> bool:
    """Whether it is a list of something else than tensors, as detectors return it: an entry per row."""
    return isinstance(output, list) and len(output) == rows and not any(isinstance(part, Tensor) for part in output)


def floats(output: Any) -> list[Tensor]:
    """The floating tensors in a raw output, also those that an object of the user's own class keeps.

    Of complex ones the real and imaginary parts side by side.
    """
    found = [leaf for leaf in _tensors(output) if leaf.is_floating_point() or leaf.is_complex()]
    return [torch.view_as_real(leaf.resolve_conj()) if leaf.is_complex() else leaf for leaf in found]


def _tensors(output: Any, depth: int = _DEEPEST) -> Iterator[Tensor]:
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            yield leaf
        elif depth and hasattr(leaf, "__dict__") and not (isinstance(leaf, type) or callable(leaf)):
            yield from _tensors(list(vars(leaf).values()), depth - 1)


@contextmanager
def _measuring(module: nn.Module, sizes: list[int]) -> Iterator[None]:
    """Appends the bytes of every leaf module's output: the activations of one forward."""

    def record(_module: nn.Module, _args: Any, output: Any) -> None:
        sizes.extend(leaf.numel() * leaf.element_size() for leaf in floats(output))

    leaves = [leaf for leaf in module.modules() if next(leaf.children(), None) is None]
    handles = [leaf.register_forward_hook(record) for leaf in leaves]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _python_state(model: nn.Module) -> dict[str, Any]:
    """What a forward could count or collect in: the plain attributes of every module of the user's with children.

    Leaf modules of the user's are called as they are wherever a model is captured, so theirs may change.
    """
    state = {}
    for path, module in model.named_modules():
        if next(module.children(), None) is None and path:
            continue
        for name, value in vars(module).items():
            if name not in _TORCH_STATE and not name.endswith("_hooks"):
                state[f"{path}.{name}" if path else name] = _frozen(value)
        for name, buffer in module._buffers.items():
            state[f"{path}.{name}" if path else name] = _frozen(buffer)
    return state


def _frozen(value: Any, depth: int = 3) -> Any:
    """A copy that can be compared: of numbers, strings and containers by value, of anything else by identity."""
    if isinstance(value, Tensor):
        return id(value), None if value.is_inference() else value._version
    if isinstance(value, int | float | complex | str | bytes | bool | None):
        return value
    if depth and isinstance(value, list | tuple | set | frozenset) and len(value) < 1000:
        return type(value).__name__, tuple(_frozen(part, depth - 1) for part in value)
    if depth and isinstance(value, dict) and len(value) < 1000:
        return "dict", tuple((str(key), _frozen(part, depth - 1)) for key, part in value.items())
    if depth and hasattr(value, "__dict__") and not isinstance(value, type | nn.Module) and not callable(value):
        return id(value), _frozen(vars(value), depth - 1)
    return id(value)


def _unsteady(model: nn.Module, before: dict[str, Any], draws: set[str]) -> str | None:
    after = _python_state(model)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if changed:
        return f"its forward changes `{changed[0]}`"
    if on_all_modules():
        return "hooks are registered for all modules, and steps that are no modules would pass them by"
    if draws:
        return "its forward draws random numbers"
    return None
