"""Who drew: random numbers that our own calls took from the global generators, told apart from other threads' draws.

The global generators are one per process. What they held before a call may be put back only where the call itself drew:
anything else would make another thread draw the same numbers twice.
"""

from __future__ import annotations

import pickle
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .uncompiled import never_compiled

Answer = TypeVar("Answer")
_ledgers = threading.local()


class Generators:
    """What the global generators hold at the moment: Python's, NumPy's, torch's, and those of CUDA where it is used."""

    def __init__(self, *names: str) -> None:
        read = {name: states for name, (states, _) in _GENERATORS.items() if not names or name in names}
        self._states = {name: states() for name, states in read.items()}

    def changed(self) -> set[str]:
        """Those that hold something else now."""
        return {name for name, state in self._states.items() if not _same(state, _GENERATORS[name][0]())}

    def put_back(self, names: set[str]) -> None:
        """Makes these hold what they held."""
        for name in names & self._states.keys():
            _GENERATORS[name][1](self._states[name])


def drawn_by(call: Callable[[], Answer]) -> tuple[Answer, set[str]]:
    """What `call` returns, and which generators it drew from; noted.

    Where other threads run and something was drawn meanwhile, `call` is repeated once, and this thread watched.
    """
    before = Generators()
    answer = call()
    suspects = before.changed()
    if suspects and not alone():
        with _Watch(suspects) as watch:
            answer = call()  # what hooks have kept belongs to this one
        suspects = watch.drawn
    note(suspects)
    return answer, suspects


@contextmanager
def undrawn() -> Iterator[None]:
    """Puts back what generators held before, those from which calls of this thread were seen to draw.

    Where no other thread runs, everything that was drawn was drawn here.
    """
    before, by_itself, ledger = Generators(), alone(), set[str]()
    ledgers = _own_ledgers()
    ledgers.append(ledger)
    try:
        yield
    finally:
        ledgers.pop()
        before.put_back(before.changed() if by_itself and alone() else ledger)


def note(draws: set[str] | frozenset[str]) -> None:
    """Writes down that a call of this thread draws from these generators."""
    for ledger in _own_ledgers():
        ledger |= draws


def alone() -> bool:
    """Whether no other thread of Python runs."""
    return threading.active_count() == 1


def _own_ledgers() -> list[set[str]]:
    if not hasattr(_ledgers, "open"):
        _ledgers.open = []
    return _ledgers.open


class _Watch(TorchDispatchMode):
    """Watches what this thread draws: torch's operators by a mode, Python's by profiling, both of which are its own.

    NumPy's draws show in neither, but all take a lock, which this thread holds meanwhile.

    Attributes:
        drawn: the generators drawn from.
    """

    def __init__(self, suspects: set[str]) -> None:
        super().__init__()
        self.drawn: set[str] = set()
        self._suspects, self._torch = suspects, suspects & {"torch", "cuda"}
        self._open = ExitStack()

    def __enter__(self) -> _Watch:
        if self._torch:
            super().__enter__()
            self._open.callback(super().__exit__, None, None, None)
        if "numpy" in self._suspects:
            self._hold_numpy()
        if "python" in self._suspects and sys.getprofile() is not None:
            self.drawn.add("python")  # the place is taken: better a generator put back than one left advanced
        elif self._suspects & {"python", "torch"} and sys.getprofile() is None:
            sys.setprofile(self._event)
            self._open.callback(sys.setprofile, None)
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.close()

    def _hold_numpy(self) -> None:
        lock = np.random.mtrand._rand._bit_generator.lock  # type: ignore[attr-defined]
        if not isinstance(lock, _REENTRANT):  # an older NumPy, in which this thread could not draw then
            self.drawn.add("numpy")
            return
        self._open.enter_context(lock)
        before = Generators("numpy")
        self._open.callback(lambda: self.drawn.update(before.changed()))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # it would be imported for this, which takes seconds

    @never_compiled
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or _draws_nothing(func, args, kwargs):
            return func(*args, **kwargs)
        before = Generators(*self._torch)
        result = func(*args, **kwargs)
        self.drawn |= before.changed()
        return result

    def _event(self, _frame: Any, event: str, called: Any) -> None:
        owner = getattr(called, "__self__", None) if event == "c_call" else None
        if owner is _PYTHON:
            self.drawn.add("python")
        elif owner is torch.default_generator and called.__name__ != "get_state":
            self.drawn |= self._torch & {"torch"}  # seeded


def _draws_nothing(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operator that may draw does not: it has a generator of its own, or there is no dropout."""
    arguments = func._schema.arguments
    given = {argument.name: argument.default_value for argument in arguments}
    given |= {argument.name: value for argument, value in zip(arguments, args, strict=False)} | kwargs
    own = any(isinstance(value, torch.Generator) for value in given.values())
    return own or given.get("dropout_p") == 0 or given.get("train") is False or given.get("training") is False


_REENTRANT = type(threading.RLock())
_PYTHON = random.random.__self__  # type: ignore[attr-defined]


def _numpy_state() -> bytes:
    return pickle.dumps(np.random.get_state(legacy=False))


def _set_numpy_state(state: bytes) -> None:
    np.random.set_state(pickle.loads(state))


def _cuda_states() -> list[torch.Tensor]:
    used = torch.cuda.is_available() and torch.cuda.is_initialized()
    return torch.cuda.get_rng_state_all() if used else []


def _set_cuda_states(states: list[torch.Tensor]) -> None:
    if states:
        torch.cuda.set_rng_state_all(states)


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(torch.equal, left, right))
    return left == right


_GENERATORS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "python": (random.getstate, random.setstate),
    "numpy": (_numpy_state, _set_numpy_state),
    "torch": (torch.get_rng_state, torch.set_rng_state),
    "cuda": (_cuda_states, _set_cuda_states),
}
