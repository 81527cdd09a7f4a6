"""What a model must be for the engine to answer in a library's place, and what is remembered of it."""

from __future__ import annotations

import inspect
import threading
import types
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .calls import Uncovered
from .watched import Answer, watched

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


@dataclass
class _Known:
    """What is remembered of a model, as long as it lives.

    Attributes:
        state: what its modules were when the answers were given.
        answers: by what was asked.
    """

    state: Any = None
    answers: dict[Any, Answer] = field(default_factory=dict)


_KNOWN: weakref.WeakKeyDictionary[Any, _Known] = weakref.WeakKeyDictionary()
_ENGINES: weakref.WeakKeyDictionary[Any, list[Engine]] = weakref.WeakKeyDictionary()
_KEPT = 4  # engines of one explainer
_LOCK = threading.Lock()


def refuse_changed(explainer: Any, library: str, served: str = "attribute") -> None:
    """Refuses subclasses that replace what the library's own method calls.

    Raises:
        Uncovered: one does.
    """
    kinds = type(explainer).__mro__
    base = next((at for at, kind in enumerate(kinds) if kind.__module__.partition(".")[0] == library), None)
    if not base:
        return
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
    modules = modules_in(forward)
    if any(_trains(kind) for kind in {type(module) for module in modules if module.training}):
        raise Uncovered("the model is in training mode, in which it answers otherwise; call .eval()")
    behind = getattr(forward, "__self__", None)
    if isinstance(behind, nn.Module) and getattr(forward, "__func__", None) is type(behind).forward:
        return forward if hooked(behind) else behind
    return forward


def modules_in(forward: Any) -> Sequence[nn.Module]:
    """All modules of a model; of a function, those that it holds or is bound to."""
    if isinstance(forward, nn.Module):
        return list(forward.modules())
    return [module for held in modules_held(forward) for module in held.modules()]


def modules_held(function: Any) -> Sequence[nn.Module]:
    """The modules that a function holds or is bound to, each once, without those in them."""
    held = (value.__self__ if isinstance(value, types.MethodType) else value for value in _held(function))
    return list({id(value): value for value in held if isinstance(value, nn.Module)}.values())


def _held(function: Any) -> Iterator[Any]:
    """What a function has around it."""
    yield from (function, getattr(function, "func", None), *getattr(function, "args", ()))
    yield from getattr(getattr(function, "__self__", function), "__dict__", {}).values()
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            continue
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    yield from (getattr(function, "__globals__", {}).get(name) for name in names)


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
        for code in _codes(function.__code__)
    )


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


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
    state = _state(modules_in(model))
    key = (tuple(inputs.shape[1:]), inputs.dtype, inputs.device, layer and id(layer))
    known = _known(model)
    with _LOCK:
        if known.state != state:
            known.state, known.answers = state, {}
        answer = known.answers.get(key)
    if answer is None:
        answer = known.answers[key] = watched(forward, inputs[:1].detach(), layer)
    return answer


def _state(modules: Sequence[nn.Module]) -> Any:
    """What decides which operations run: the modules, their code, and plain values in those not of torch."""
    state: list[Any] = []
    for module in modules:
        kind = type(module)
        state += (id(module), kind.forward)
        if not kind.__module__.startswith("torch.nn."):
            state += (value for value in vars(module).values() if type(value) in _PLAIN)
    return state


def _known(model: Any) -> _Known:
    with _LOCK:
        known = _KNOWN.get(model)
        if known is None:
            known = _KNOWN[model] = _Known()
        return known
