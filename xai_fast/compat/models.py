"""What a model must be for the engine to answer in a library's place, and what is remembered of it."""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xai_fast.core.apart import Question, ask

from .calls import Uncovered
from .holding import codes_of, modules_held
from .watched import Answer, watched
from .worth import Work, enough

if TYPE_CHECKING:
    from xai_fast.engine import Engine

# Modules that answer otherwise in training mode. Those of torch that are not here answer alike in both.
_TRAINED = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._NormBase,
    nn.RNNBase,
    nn.RReLU,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)
_PLAIN = (bool, int, float, str, type(None))
_EVERY = frozenset(vars(nn.Module()))  # what every module has
_LONGEST = 50  # what a container may hold to be looked into


@dataclass
class _Known:
    """What is remembered of a model, as long as it lives.

    Attributes:
        state: what its modules were when the answers were given.
        answers: by what was asked.
        mixed: why rows of a batch depend on each other, by what was asked; None where they do not.
    """

    state: Any = None
    answers: dict[Any, Answer] = field(default_factory=dict)
    mixed: dict[Any, str | None] = field(default_factory=dict)


_KNOWN: weakref.WeakKeyDictionary[Any, _Known] = weakref.WeakKeyDictionary()
_ENGINES: weakref.WeakKeyDictionary[Any, list[Engine]] = weakref.WeakKeyDictionary()
_KEPT = 4  # engines of one explainer
_LOCK = threading.Lock()


def refuse_changed(explainer: Any, library: str, served: str = "attribute") -> None:
    """Refuses subclasses, and objects, that replace what the library's own method calls.

    Raises:
        Uncovered: one does.
    """
    kinds = type(explainer).__mro__
    base = next((at for at, kind in enumerate(kinds) if kind.__module__.partition(".")[0] == library), None)
    if base is None:
        return
    for name in getattr(explainer, "__dict__", {}):
        if inspect.isroutine(getattr(kinds[base], name, None)) and name != served:
            raise Uncovered(f"the object has its own `{name}`")
    for kind in kinds[:base]:
        for name in vars(kind):
            if hasattr(kinds[base], name) and name != served and not name.startswith("__"):
                raise Uncovered(f"a subclass has its own `{name}`")


def one_tensor(inputs: Any) -> Tensor:
    """The one input tensor.

    Raises:
        Uncovered: there are several, or it is none that the engine takes.
    """
    if isinstance(inputs, tuple):
        if len(inputs) != 1:
            raise Uncovered("several input tensors")
        inputs = inputs[0]
    if type(inputs) not in (Tensor, torch.nn.Parameter):
        raise Uncovered(f"inputs of type {type(inputs).__name__}")
    if inputs.dtype not in (torch.float32, torch.float64):
        raise Uncovered(f"inputs of {inputs.dtype}")
    if not 3 <= inputs.ndim <= 5:
        raise Uncovered(f"inputs with {inputs.ndim} axes")
    if 0 in inputs.shape:
        raise Uncovered("inputs without elements")
    return inputs


def model_of(forward: Any) -> Any:
    """The module behind a forward function, or the function.

    Raises:
        Uncovered: its answers may not be what the engine's copy gives.
    """
    if isinstance(forward, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise Uncovered("the model runs on several devices")
    if torch.is_inference_mode_enabled() or torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        raise Uncovered("inference mode or autocast is on")
    if torch.get_default_dtype() is not torch.float32:
        raise Uncovered("another default dtype, which libraries make tensors of their own in")
    modules = modules_in(forward)
    if any(_trains(kind) for kind in {type(module) for module in modules if module.training}):
        raise Uncovered("the model is in training mode, in which it answers otherwise; call .eval()")
    behind = getattr(forward, "__self__", None)
    if isinstance(behind, nn.Module) and getattr(forward, "__func__", None) is type(behind).forward:
        return forward if hooked(behind) else behind
    return forward


def modules_in(forward: Any) -> Sequence[nn.Module]:
    """All modules of a model; of a function, those that it holds or is bound to."""
    held = [forward] if isinstance(forward, nn.Module) else modules_held(forward)
    found, left = dict[int, nn.Module](), [*held]
    while left:  # `modules()` takes four times as long, and this is asked several times a call
        module = left.pop()
        if id(module) not in found:
            found[id(module)] = module
            left += [child for child in module._modules.values() if child is not None]
    return list(found.values())


def hooked(module: nn.Module) -> bool:
    """Whether hooks run around the module itself."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def _trains(kind: type) -> bool:
    """Whether modules of a class may answer otherwise in training mode: they are known to, or read `training`."""
    if issubclass(kind, _TRAINED):
        return True
    if kind.__module__.startswith("torch.nn."):
        return False
    return any(
        "training" in code.co_names
        for owner in kind.__mro__[: kind.__mro__.index(nn.Module)]
        for function in vars(owner).values()
        if inspect.isfunction(function) and function.__name__ not in ("train", "eval")
        for code in codes_of(function.__code__)
    )


def engine_of(explainer: Any, model: Any) -> Engine:
    """The engine of a model, kept as long as the explainer that asks about it."""
    from xai_fast.engine import Engine  # heavy; what is passed on does without

    with _LOCK:
        kept = _ENGINES.setdefault(explainer, [])
        engine = next((one for one in kept if one.model is model), None)
        if engine is None:
            del kept[: max(len(kept) - _KEPT + 1, 0)]
            kept.append(engine := Engine.of(model))
        return engine


def answer_of(forward: Any, model: Any, inputs: Tensor, layer: nn.Module | None = None) -> Answer:
    """What the model does with one row, asked once per shape of the input while its modules stay what they are.

    Raises:
        Uncovered: no plain tensor with an entry per row, or random numbers were drawn.
    """
    known, key = _known_now(model), (*_key(inputs), layer and id(layer))
    answer = known.answers.get(key)
    if answer is None:
        answer = known.answers[key] = watched(forward, inputs[:1].detach(), layer)
    return answer


def accept(forward: Any, model: Any, inputs: Tensor, answer: Answer, work: Work, *, unprepared: bool = False) -> None:
    """Refuses what is too little work, and models that a library asks about several rows that depend on each other.

    Args:
        forward: of one batch.
        model: behind it.
        inputs: (N, C, *S).
        answer: what the model does with one of them.
        work: what the library would ask of it.
        unprepared: whether the engine is the faster one on a plain copy already.

    Raises:
        Uncovered: it is one: the engine answers what the model says to a row alone.
    """
    enough(model, answer, work, unprepared=unprepared)
    if work.rows < 2:
        return
    known, key = _known_now(model), _key(inputs)

    def take(reason: str | None) -> None:
        known.mixed[key] = reason
        if reason is not None:
            raise Uncovered(f"rows of a batch depend on each other: {reason}")

    if key in known.mixed:
        take(known.mixed[key])
    else:  # the engine is asked next, and knows where it prepares the model
        ask(Question(model, key[0], lambda: _mixed(forward, inputs.detach()), take))


@torch.no_grad()
def _mixed(forward: Any, inputs: Tensor) -> str | None:
    """Why rows of the model's batches depend on each other; None where they do not, or it cannot be told."""
    from xai_fast.core.rows import mixed_rows, unlike  # what is passed on does without

    row, own = inputs[:1], forward(inputs[:1].clone())
    for other in (unlike(row), inputs[1:2]):  # whole numbers in it may be places in a table, of which not all exist
        try:
            alone = [own, forward(other.clone())] if len(other) else []
        except Exception:  # the model's own, of a row that nobody asked about
            continue
        return mixed_rows(forward, [row, other], alone) if alone else None
    return None


def _key(inputs: Tensor) -> tuple[Any, ...]:
    return tuple(inputs.shape[1:]), inputs.dtype, inputs.device


def _known_now(model: Any) -> _Known:
    """What is known of a model as it is."""
    state, known = _state(modules_in(model)), _known(model)
    with _LOCK:
        if known.state != state:
            known.state, known.answers, known.mixed = state, {}, {}
    return known


def _state(modules: Sequence[nn.Module]) -> Any:
    """What decides which operations run: the modules, their code and hooks; in those not of torch, what they hold."""
    state: list[Any] = []
    for module in modules:
        kind, own = type(module), getattr(module, "__dict__", {})
        state += (id(module), kind.forward, own.get("forward"), own.get("inplace"), module.training)
        state += (*own.get("_forward_hooks", ()), "before", *own.get("_forward_pre_hooks", ()))
        if not kind.__module__.startswith("torch.nn."):
            state += (_decisive(value) for name, value in own.items() if name not in _EVERY)
    return state


def _decisive(value: Any, deep: int = 2) -> Any:
    """What of an attribute may decide which operations run: plain values, and which function or object it is."""
    if type(value) in _PLAIN:
        return value
    if type(value) in (list, tuple, dict) and len(value) > _LONGEST:
        return len(value)
    if type(value) in (list, tuple) and deep:
        return tuple(_decisive(one, deep - 1) for one in value)
    if type(value) is dict and deep:
        return tuple((_decisive(key, 0), _decisive(one, deep - 1)) for key, one in value.items())
    return None if isinstance(value, Tensor) else id(value)


def _known(model: Any) -> _Known:
    with _LOCK:
        known = _KNOWN.get(model)
        if known is None:
            known = _KNOWN[model] = _Known()
        return known
