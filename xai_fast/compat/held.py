"""Torch modules that a function holds, for which the engine answers while a library asks the function.

What a function around a model does before and after it is its own. The model in it is looked for where functions keep
things: bound to it, around it, in the globals that it names, in its attributes. While a library asks, such a module has
a forward that asks the engine in its place, in this thread alone; whatever the engine does not serve runs as it would.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .alone import alone_on
from .calls import Uncovered, reason_of
from .differentiable import later
from .holding import modules_held
from .models import accept, answer_of, engine_of, hooked, model_of, one_tensor
from .worth import Work


@dataclass
class Answering:
    """What became of the calls of the modules that a function holds.

    Attributes:
        rows: that the engine answered.
        reason: why it did not answer others, or all; "" where nothing was asked.
    """

    rows: int = 0
    reason: str = ""


@contextmanager
def answering(function: Any) -> Iterator[Answering]:
    """While it is open, the engine answers for the modules that `function` holds; they are left as they were found.

    Raises:
        Uncovered: it holds none that the engine may answer for.
    """
    found, modules = Answering(), _answerable(function)
    if not modules:
        raise Uncovered("a function in which no torch module in eval mode is seen")
    with alone_on(modules), ExitStack() as stack:  # a module has one forward at a time
        for module in modules:
            stack.enter_context(_answered(module, found))
        yield found


def may_answer(function: Any) -> bool:
    """Whether `function` holds a module that the engine may answer for."""
    return bool(_answerable(function))


def _answerable(function: Any) -> list[nn.Module]:
    return [module for module in modules_held(function) if _may_answer(module)]


def _may_answer(module: nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule) or "forward" in vars(module) or hooked(module):
        return False
    if type(module).__module__.startswith("torch._dynamo") or next(module.parameters(), None) is None:
        return False
    try:
        return model_of(module) is module
    except Uncovered:
        return False


@contextmanager
def _answered(module: nn.Module, found: Answering) -> Iterator[None]:
    """The module with a forward that asks the engine."""
    thread, own = threading.get_ident(), vars(module)

    def forward(*args: Any, **kwargs: Any) -> Any:
        def again() -> Any:
            return type(module).forward(module, *args, **kwargs)

        if threading.get_ident() != thread:
            return again()
        del own["forward"]  # the engine compares the module with what it has prepared
        try:
            return _scores(module, args, kwargs, again, found)
        except Exception as error:  # what the engine does not serve, the module answers
            found.reason = found.reason or reason_of(error)
            return again()
        finally:
            own["forward"] = forward

    own["forward"] = forward
    try:
        yield
    finally:
        own.pop("forward", None)


def _scores(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], again: Callable[[], Any], found: Answering
) -> Tensor:
    """What the module returns, by the engine; as the module's own it can be differentiated by the parameters."""
    if kwargs or len(args) != 1:
        raise Uncovered("the module takes several arguments")
    rows = one_tensor(args[0])
    if torch.is_grad_enabled() and rows.requires_grad:
        raise Uncovered("a gradient by the input may be asked for")
    answer = answer_of(module, module, rows)
    if len(answer.shape) != 1 or answer.dtype is not rows.dtype:
        raise Uncovered("the module returns no table of class scores in the inputs' type")
    accept(module, module, rows, answer, Work(len(rows)))
    from xai_fast.engine.responses import class_scores  # heavy; what is passed on does without

    values = class_scores(engine_of(module, module), rows.detach()).to(rows.device, answer.dtype)
    found.rows += len(rows)
    return later(values, again, list(module.parameters()))
