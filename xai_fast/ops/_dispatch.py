"""Which implementation of an op runs: a preference table per op, and the reasons why others do not."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xai_fast.ops._library import no_cuda, no_library
from xai_fast.ops._memory import settled

BACKENDS = ("reference", "cpp", "triton", "cuda")
VARIABLE = "XAI_FAST_BACKEND"

Reason = Callable[..., str | None]
Loader = Callable[[], Callable[..., Any]]

logger = logging.getLogger(__name__)
_forced: ContextVar[str | None] = ContextVar("forced_backend", default=None)
_ops: dict[str, Op] = {}


class BackendError(RuntimeError):
    """The backend that was asked for cannot run this call; the message holds every reason."""


class Offer(NamedTuple):
    """One implementation: how to load it, and what may speak against it for given arguments."""

    backend: str
    load: Loader
    unless: tuple[Reason, ...]

    def reasons(self, *args: Any) -> list[str]:
        """Returns why this implementation refuses the arguments; empty when it takes them."""
        return [reason for refuse in self.unless if (reason := refuse(*args)) is not None]


class Op:
    """An operation with a plain reference and faster implementations, tried in the order they were offered.

    An implementation that fails raises: the choice is made before the call, from reasons, never from errors.

    Args:
        name: the op's name, also that of its folder and of its compiled function.
        reference: returns the specification in plain torch, which takes every call; called once, on first use.
        writes: names of the arguments that it writes, as the reference calls them.
        in_place: names of those that may be the very tensor that is written. What else shares memory with that is
            copied before.
    """

    def __init__(
        self, name: str, reference: Loader, writes: tuple[str, ...] = ("out",), in_place: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self._writes, self._in_place = writes, in_place
        self._reference = Offer("reference", reference, ())
        self._offers: list[Offer] = []
        self._loaded: dict[str, Callable[..., Any]] = {}
        self._logged: set[tuple[str, str]] = set()
        _ops[name] = self

    def offer(self, backend: str, load: Loader, unless: tuple[Reason, ...] = ()) -> None:
        """Adds an implementation, less preferred than those before it.

        Args:
            backend: one of `BACKENDS`.
            load: returns the implementation; called once, on first use.
            unless: each gets the call's arguments and returns a reason to refuse them, or None.
        """
        self._offers.append(Offer(backend, load, unless))

    @property
    def backends(self) -> tuple[str, ...]:
        """The implementations that exist in the source, in order of preference, the reference last."""
        return (*(offer.backend for offer in self._offers), "reference")

    def __call__(self, *args: Any) -> Any:
        """Runs the chosen implementation on memory that means what it says (see `_memory`).

        Raises:
            TypeError, ValueError: a tensor has no such memory.
        """
        plain, through = settled(args, self._names, self._writes, self._in_place)
        backend = self._choose(plain)
        run = self._loaded.get(backend)
        if run is None:
            run = self._loaded[backend] = self._find(backend).load()
        answer = run(*plain)
        for given, written in through:
            given.copy_(written)
        return answer

    @functools.cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self._reference.load()).parameters)

    def which(self, *args: Any) -> str:
        """Returns the backend that a call with these arguments runs on."""
        return self._choose(args)

    def compiled(self, *args: Any) -> bool:
        """Whether a kernel takes these arguments, no backend that lacks one being forced; for callers with a choice."""
        forced = _forced.get() or os.environ.get(VARIABLE)
        return any(forced in (None, offer.backend) and not offer.reasons(*args) for offer in self._offers)

    def kernel(self) -> Callable[..., Any] | None:
        """The compiled kernel itself, which checks nothing; None where another backend is forced, or it never ran."""
        forced = _forced.get() or os.environ.get(VARIABLE)
        return self._loaded.get("cpp") if forced in (None, "cpp") and not torch.compiler.is_compiling() else None

    def reasons(self, *args: Any) -> dict[str, list[str]]:
        """Returns, per backend, why it refuses these arguments (an empty list: it takes them)."""
        return {offer.backend: offer.reasons(*args) for offer in (*self._offers, self._reference)}

    def _find(self, backend: str) -> Offer:
        return next(offer for offer in (*self._offers, self._reference) if offer.backend == backend)

    def _choose(self, args: Sequence[Any]) -> str:
        forced = _forced.get() or os.environ.get(VARIABLE)
        backend = self._insist(forced, args) if forced else self._prefer(args)
        chosen = (backend, next(str(value.device) for value in args if isinstance(value, Tensor)))
        if chosen not in self._logged:
            self._logged.add(chosen)
            logger.info("%s runs on %s for %s", self.name, *chosen)
        return backend

    def _prefer(self, args: Sequence[Any]) -> str:
        for offer in self._offers:
            if all(refuse(*args) is None for refuse in offer.unless):
                return offer.backend
        return "reference"

    def _insist(self, backend: str, args: Sequence[Any]) -> str:
        check_backend(backend, VARIABLE)
        if backend not in self.backends:
            reasons = [f"{self.name} has no {backend} implementation"]
        else:
            reasons = self._find(backend).reasons(*args)
        if reasons:
            listed = "".join(f"\n  - {reason}" for reason in reasons)
            raise BackendError(
                f"the backend {backend!r} was asked for but refuses {self.name}({_describe(args)}):{listed}\n"
                f"choose another with `using(...)` or {VARIABLE}, or neither for the best that applies"
            )
        return backend


def _describe(args: Sequence[Any]) -> str:
    return ", ".join(
        f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)} on {value.device}"
        if isinstance(value, Tensor)
        else repr(value)
        for value in args
    )


def check_backend(name: str, source: str) -> None:
    """Raises ValueError unless `name`, which came from `source`, is one of `BACKENDS`."""
    if name not in BACKENDS:
        raise ValueError(f"`{source}` is {name!r}, which is no backend; choose one of {', '.join(BACKENDS)}")


def check_available() -> None:
    """Raises ValueError where the environment forces a backend that does not exist, or that cannot run here."""
    if forced := os.environ.get(VARIABLE):
        check_backend(forced, VARIABLE)
        if (why := backends()[forced]) is not None:
            raise ValueError(
                f"`{VARIABLE}` is {forced!r}, which cannot run here: {why}; unset it for the best that can"
            )


@contextmanager
def using(backend: str | None) -> Iterator[None]:
    """Forces one backend for every op called inside, in this thread; None lifts an outer choice.

    A call that the backend refuses raises `BackendError`. Precedes the variable `XAI_FAST_BACKEND`.

    Raises:
        ValueError: `backend` is no backend's name.
    """
    if backend is not None:
        check_backend(backend, "backend")
    token = _forced.set(backend)
    try:
        yield
    finally:
        _forced.reset(token)


def all_ops() -> dict[str, Op]:
    """Returns every op by name."""
    return dict(_ops)


def lazily(module: str, name: str) -> Loader:
    """Returns a loader of the function `name` in `module`, which is imported on first use."""
    return lambda: getattr(importlib.import_module(module), name)


def interpreting() -> bool:
    """Whether Triton kernels run on the CPU through its interpreter (set before Triton is imported)."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def no_triton(*_: Any) -> str | None:
    """Returns why Triton kernels cannot run on this machine, or None."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if not interpreting() and not torch.cuda.is_available():
        return "no CUDA device (TRITON_INTERPRET=1, set before start, interprets the kernels on the CPU)"
    return None


def not_on_cpu(*args: Any) -> str | None:
    """Refuses what the compiled kernels cannot read: tensors elsewhere, or with no memory of their own."""
    for value in args:
        if isinstance(value, Tensor):
            if not value.is_cpu:
                return f"a tensor is on {value.device}, not on the CPU"
            if type(value) is not Tensor and type(value) is not torch.nn.Parameter:
                return f"a tensor is a {type(value).__name__}, whose memory only torch understands"
    return None


def not_on_cuda(*args: Any) -> str | None:
    """Refuses arguments that Triton kernels cannot read."""
    for value in args:
        if isinstance(value, Tensor) and not (value.is_cuda or (interpreting() and value.is_cpu)):
            return f"a tensor is on {value.device}, not on a CUDA device"
    return None


def backends() -> dict[str, str | None]:
    """Returns, per backend, why it cannot run at all on this machine, or None when it can."""
    return {"reference": None, "cpp": no_library(), "triton": no_triton(), "cuda": no_cuda()}
