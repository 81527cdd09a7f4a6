"""Accelerated methods put into other libraries' classes, now or when they are imported, and taken out again."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .calls import Accelerated


@dataclass
class Library:
    """A library, and what of it is accelerated.

    Attributes:
        name: of its package.
        trigger: the module after whose import all of its classes are there.
        methods: what is put in.
        apart: modules that are imported apart, and after whose import what they define is there.
    """

    name: str
    trigger: str
    methods: Sequence[Accelerated]
    apart: Sequence[str] = ()
    users: int = 0
    _replaced: list[tuple[Any, str, Any, Any]] = field(default_factory=list)

    @property
    def installed(self) -> bool:
        """Whether the library can be imported; looked up without importing it."""
        return self.name in sys.modules or importlib.util.find_spec(self.name) is not None

    @property
    def triggers(self) -> tuple[str, ...]:
        """The modules after whose import there is something to put in."""
        return (self.trigger, *self.apart)

    def put_in(self) -> None:
        """Replaces the methods whose classes are there, each once."""
        done = [(owner, name) for owner, name, _, _ in self._replaced]
        for accelerated in self.methods:
            needs = accelerated.owner if accelerated.owner in self.apart else self.trigger
            owner, name = accelerated.holder(), accelerated.attribute
            if needs not in sys.modules or any(owner is one and name == other for one, other in done):
                continue
            if owner is None or name not in vars(owner):
                continue  # another version of the library: its own code runs
            original = vars(owner)[name]
            ours = accelerated.over(original, lambda: self.users > 0)
            setattr(owner, name, ours)
            self._replaced.append((owner, name, original, ours))

    def take_out(self) -> None:
        """Puts the library's own methods back, except where somebody else has replaced ours."""
        for owner, method, original, ours in self._replaced:
            if vars(owner).get(method) is ours:
                setattr(owner, method, original)
        self._replaced.clear()


@functools.cache
def subclass(owner: str, name: str, methods: Sequence[Accelerated], module: str) -> type:
    """The library's class `name` with those of the accelerated methods that it has, accelerated or not itself.

    Args:
        owner: the module of the library that defines the class.
        name: of the class.
        methods: hashable.
        module: where the subclass says that it is from.
    """
    base = getattr(importlib.import_module(owner), name)
    body: dict[str, Any] = {"__doc__": base.__doc__, "__module__": module}
    for accelerated in methods:
        definer = next((kind for kind in base.__mro__ if accelerated.method in vars(kind)), None)
        if definer is not None and (definer.__name__, definer.__module__) == (accelerated.name, accelerated.owner):
            own = vars(definer)[accelerated.method]
            own = own.__wrapped__ if hasattr(own, "__xai_fast__") else own
            body[accelerated.method] = accelerated.over(own)
    return type(name, (base,), body)


_LOCK = threading.RLock()
_WATCHED: dict[str, Library] = {}


def switch_on(libraries: Sequence[Library]) -> None:
    """One more user of each; what is not imported yet is accelerated when it is."""
    with _LOCK:
        for library in libraries:
            library.users += 1
            library.put_in()
            _WATCHED.update(dict.fromkeys(library.triggers, library))
        if _FINDER not in sys.meta_path:
            sys.meta_path.insert(0, _FINDER)


def switch_off(libraries: Sequence[Library], *, for_all: bool = False) -> None:
    """One user less of each, or none; the last one takes the methods out."""
    with _LOCK:
        for library in libraries:
            library.users = 0 if for_all else max(library.users - 1, 0)
            if not library.users:
                library.take_out()
                for trigger in library.triggers:
                    _WATCHED.pop(trigger, None)
        if not _WATCHED and _FINDER in sys.meta_path:
            sys.meta_path.remove(_FINDER)


class _Finder(MetaPathFinder):
    """Lets the other finders find a watched module, and has its loader tell when it has been imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the other finders have."""
        library = _WATCHED.get(fullname)
        if library is None:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(fullname, path, target) if find is not None and finder is not self else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader.exec_module = _then(spec.loader, library)  # type: ignore[method-assign]
                return spec
        return None


def _then(loader: Any, library: Library) -> Callable[[ModuleType], None]:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        loader.__dict__.pop("exec_module", None)  # the module keeps its loader, as it was
        execute(module)
        with _LOCK:
            if library.users:
                library.put_in()

    return exec_module


_FINDER = _Finder()
