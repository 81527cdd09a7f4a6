"""One call of another library's method: served by the engine, or passed on to the library with the reason; counted."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

from xai_fast.core.apart import asking

from .tally import TALLY

_LONGEST = 160  # characters of a reason
_MISSING = object()


class Uncovered(Exception):
    """What the engine does not serve; its text is the reason in the report."""


class CallersError(Exception):
    """Its cause is the caller's to see: what their own function raised, which the library must not ask once more."""


@dataclass
class Call:
    """A call of the library's method.

    Attributes:
        explainer: the library's object.
        arguments: what the caller gave, by name; those of `**kwargs` among them.
        original: the library's own function, whose first argument is the explainer.
        defaults: of the arguments that have some.
        reason: why (a part of) the call ran the library's own code; "" where nothing did.
        note: what the report says of the result, such as an error of the library's that is in it.
        positional: what the caller gave to the function's `*args`, where it has some.
        turn: in which no other thread is served about the explainer's model, nor is the model changed by one.
        alone: what the library's own code runs in: the turn, where it changes the model meanwhile.
    """

    explainer: Any
    arguments: dict[str, Any]
    original: Callable[..., Any]
    defaults: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    note: str = ""
    positional: tuple[Any, ...] = ()
    turn: Callable[[], AbstractContextManager[Any]] = nullcontext
    alone: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __getitem__(self, name: str) -> Any:
        """An argument as given, or its default."""
        value = self.arguments.get(name, _MISSING)
        return self.defaults.get(name) if value is _MISSING else value

    def plain(self, explainer: Any = None, **changed: Any) -> Any:
        """The library's own code, of another explainer or with other arguments where given."""
        asked = self.explainer if explainer is None else explainer
        with self.alone():
            return self.original(asked, *self.positional, **{**self.arguments, **changed})

    def passed_on(self, error: Exception) -> None:
        """Remembers why a part of the call ran the library's own code."""
        self.reason = self.reason or reason_of(error)


def reason_of(error: Exception) -> str:
    """An exception in one line."""
    first = (str(error).strip().splitlines() or [""])[0]
    text = first if isinstance(error, Uncovered) else f"{type(error).__name__}: {first}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def call_of(original: Callable[..., Any], explainer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """The call, its arguments by name.

    Raises:
        TypeError: they do not fit the library's function.
    """
    signature, defaults, several, extra = _signature(original)
    arguments = dict(signature.bind(explainer, *args, **kwargs).arguments)
    del arguments[next(iter(signature.parameters))]
    arguments |= arguments.pop(extra, {})
    positional = arguments.pop(several, ())
    return Call(explainer, arguments, original, defaults, positional=positional)


@functools.cache
def _signature(original: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any], str, str]:
    """The signature, its defaults, and the names of its `*args` and `**kwargs`; "" where it has none."""
    signature = inspect.signature(original)
    parameters = signature.parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    several, extra = (
        next((p.name for p in parameters if p.kind is kind), "")
        for kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    )
    return signature, defaults, several, extra


@dataclass(frozen=True)
class Accelerated:
    """How a method of the library is served.

    Attributes:
        name: the class, in the report.
        owner: the module of the library that defines the class.
        served: "module:function", imported with the first call; the function takes a `Call` and returns its result.
        method: the name of the method.
        draws: whether the library's own code draws from the global generators.
        part: whether other methods of the library call it, so that the report names it beside the class.
        title: of the class, in the report, where the library's users know it by another name.
        intrudes: whether the library's own code changes the model while it runs, by hooks or by modules in others'
            places, so that other threads have to wait.

    Without a `method` it is a function of the module `owner`, whose first argument takes the explainer's place.
    """

    name: str
    owner: str
    served: str
    method: str = "attribute"
    draws: bool = False
    part: bool = False
    title: str = ""
    intrudes: bool = False

    def holder(self) -> Any:
        """What holds the method, or the function; None where the library has no such class or is not imported."""
        module = sys.modules.get(self.owner)
        kind = getattr(module, self.name, None) if self.method else module
        return kind if isinstance(kind, type) or not self.method else None

    @property
    def attribute(self) -> str:
        """What it is called there."""
        return self.method or self.name

    def label(self, explainer: Any) -> str:
        """What the report calls it: the class of the explainer, and which part of it."""
        if not self.method:
            return self.name
        name = self.title or type(explainer).__name__
        return f"{name}.{self.method}" if self.part else name

    @functools.cached_property
    def function(self) -> Callable[[Call], Any]:
        """What serves a call."""
        module, _, name = self.served.partition(":")
        return getattr(importlib.import_module(module), name)

    def over(self, original: Callable[..., Any], active: Callable[[], bool] = lambda: True) -> Callable[..., Any]:
        """The method that takes the place of `original`, which it keeps as `__wrapped__`."""

        @functools.wraps(original)
        def method(*args: Any, **kwargs: Any) -> Any:
            return self.serve(original, *args, **kwargs) if args and active() else original(*args, **kwargs)

        # Where the library's own is wrapped, its users look through that, too: captum's composed methods do.
        method.__wrapped__ = getattr(original, "__wrapped__", original)  # type: ignore[attr-defined]
        method.__xai_fast__ = self  # type: ignore[attr-defined]
        return method

    def call(self, original: Callable[..., Any], explainer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """A call of the method.

        Raises:
            TypeError: the arguments do not fit the library's function.
        """
        call = call_of(original, explainer, args, kwargs)
        if self.method and "torch" in sys.modules:
            alone = importlib.import_module(f"{__package__}.alone").alone  # needs torch
            call.turn = functools.partial(alone, explainer)
        call.alone = call.turn if self.intrudes else nullcontext
        return call

    def serve(self, original: Callable[..., Any], explainer: Any, /, *args: Any, **kwargs: Any) -> Any:
        """The result, ours or the library's; the library's exceptions stay its own."""
        started = time.perf_counter()
        try:
            call = self.call(original, explainer, args, kwargs)
        except TypeError:
            return original(explainer, *args, **kwargs)  # says what is wrong in its own words
        random = _Randomness() if self.draws else None
        theirs: BaseException | None = None
        try:
            with call.turn(), _serving():
                result = self.function(call)
        except CallersError as error:
            theirs = error.__cause__
        except Exception as error:
            # Where the library failed while it changed the model, what it left there is not for a second run.
            theirs = error if getattr(error, "__dict__", {}).pop(_INTRUDED, False) else None
            call.passed_on(error)
        else:
            TALLY.add(self.label(explainer), call.reason, time.perf_counter() - started, call.note)
            return result
        if theirs is not None:
            raise theirs
        if random is not None:
            random.restore()
        try:
            with call.alone(), _marking() if self.intrudes else nullcontext():
                return original(explainer, *args, **kwargs)
        finally:
            TALLY.add(self.label(explainer), call.reason, time.perf_counter() - started)


_SERVING = threading.local()
_INTRUDED = "_xai_fast_intruded"


@contextmanager
def _serving() -> Iterator[None]:
    """Inside of it, this thread is serving a call, of which parts may be calls."""
    _SERVING.depth = getattr(_SERVING, "depth", 0) + 1
    try:
        with asking():
            yield
    finally:
        _SERVING.depth -= 1


@contextmanager
def _marking() -> Iterator[None]:
    """Exceptions that leave it are known again by the call that this one is a part of."""
    try:
        yield
    except Exception as error:
        if getattr(_SERVING, "depth", 0):
            with suppress(AttributeError):
                setattr(error, _INTRUDED, True)
        raise


class _Randomness:
    """The global generators as they are now, so that a call passed on late draws what it would have drawn."""

    def __init__(self) -> None:
        torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
        self._torch, self._numpy = torch, numpy
        self._cpu = torch.get_rng_state() if torch else None
        self._cuda = torch.cuda.get_rng_state_all() if torch and torch.cuda.is_initialized() else None
        self._state = numpy.random.get_state() if numpy else None

    def restore(self) -> None:
        """Puts them back."""
        if self._torch is not None:
            self._torch.set_rng_state(self._cpu)
            if self._cuda is not None:
                self._torch.cuda.set_rng_state_all(self._cuda)
        if self._numpy is not None:
            self._numpy.random.set_state(self._state)
