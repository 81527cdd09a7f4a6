"""Objects as they would be if others stood in the place of those that they refer to."""

from __future__ import annotations

import contextlib
import functools
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

DEPTH = 8
_MOST = 1000  # what holds more than this is data, and not looked into
_SEQUENCES, _MAPPINGS = (list, set, deque), (dict, OrderedDict, defaultdict)
CONTAINERS = (*_SEQUENCES, *_MAPPINGS)
_NO_STATE = (type, types.ModuleType, types.BuiltinFunctionType)


def parts(value: Any) -> Iterable[Any]:
    """What an object refers to: contents, attributes, what a function closes over and names."""
    return next((look(value) for kind, look in _PARTS.items() if isinstance(value, kind)), _attributes(value))


def names(function: types.FunctionType) -> dict[str, Any]:
    """What a function names of the module in which it stands, if it is no function, class or module."""
    found = {name: function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__}
    return {name: value for name, value in found.items() if not isinstance(value, (*_NO_STATE, types.FunctionType))}


def _contents(value: types.CellType) -> list[Any]:
    with contextlib.suppress(ValueError):  # bound later
        return [value.cell_contents]
    return []


def _attributes(value: Any) -> Iterable[Any]:
    if type(value) in (tuple, *CONTAINERS):
        beside = value.values() if isinstance(value, dict) else ()
        return () if len(value) > _MOST else (*value, *beside)
    return () if isinstance(value, _NO_STATE) else getattr(value, "__dict__", {}).values()


_PARTS: dict[type, Callable[[Any], Iterable[Any]]] = {
    Tensor: lambda value: (),
    nn.Module: lambda value: (),
    types.FunctionType: lambda value: (
        *(value.__closure__ or ()),
        *(value.__defaults__ or ()),
        *(value.__kwdefaults__ or {}).values(),
        *names(value).values(),
    ),
    types.MethodType: lambda value: (value.__self__, value.__func__),
    types.CellType: _contents,
    functools.partial: lambda value: (value.func, *value.args, *value.keywords.values()),
    weakref.ref: lambda value: (value(),),
}


class Rebuilt:
    """Makes such objects; asked again for the same one it gives the same.

    Args:
        known: by id, what stands in an object's place.
        fresh: whether all that can be written into is copied, or only what leads to something that is replaced.
    """

    def __init__(self, known: Mapping[int, Any], *, fresh: bool) -> None:
        self._known, self._fresh = known, fresh
        self._made: dict[int, Any] = {}
        self._alive: list[Any] = []  # or an id would be used again

    def __call__(self, value: Any, depth: int = DEPTH) -> Any:
        """The object, rebuilt as far as `depth` goes; itself where nothing in it is replaced, or it cannot be made."""
        for there in (self._known, self._made):
            if id(value) in there:
                return there[id(value)]
        if depth == 0 or not (self._fresh or self._leads(value, depth, set())):
            return value
        self._alive.append(value)
        try:
            make = next((make for kind, make in _MAKERS.items() if isinstance(value, kind)), _of_another_kind)
            return make(value, lambda part: self(part, depth - 1), functools.partial(self._keep, value), self._fresh)
        except Exception:  # an object of the user's may refuse to be made, in any way
            self._made.pop(id(value), None)
            return value

    def _keep(self, value: Any, made: Any) -> Any:
        self._made[id(value)] = made
        return made

    def _leads(self, value: Any, depth: int, seen: set[int]) -> bool:
        if id(value) in self._known:
            return True
        if depth == 0 or id(value) in seen:
            return False
        seen.add(id(value))
        return any(self._leads(part, depth - 1, seen) for part in parts(value))


Again = Callable[[Any], Any]  # a part, rebuilt
Keep = Callable[[Any], Any]  # remembers what was made before its parts are, which may refer to it


class _Names(dict[str, Any]):
    """The names of a module, some of them standing for something else."""

    def __init__(self, others: dict[str, Any], own: dict[str, Any]) -> None:
        super().__init__(own)
        self["__builtins__"] = others.get("__builtins__", __builtins__)
        self._others = others

    def __missing__(self, name: str) -> Any:
        return self._others[name]


def _function(value: types.FunctionType, again: Again, keep: Keep, fresh: bool) -> Any:
    rebuilt = {name: again(part) for name, part in names(value).items() if not fresh or type(part) in CONTAINERS}
    own = {name: part for name, part in rebuilt.items() if part is not value.__globals__[name]}
    there = _Names(value.__globals__, own) if own or fresh else value.__globals__
    closure = tuple(map(again, value.__closure__)) if value.__closure__ else None
    made = keep(types.FunctionType(value.__code__, there, value.__name__, None, closure))
    made.__defaults__ = value.__defaults__ and tuple(map(again, value.__defaults__))
    made.__kwdefaults__ = value.__kwdefaults__ and {name: again(part) for name, part in value.__kwdefaults__.items()}
    made.__qualname__, made.__module__ = value.__qualname__, value.__module__
    vars(made).update(vars(value))
    return made


def _cell(value: types.CellType, again: Again, keep: Keep, _fresh: bool) -> Any:
    made = keep(types.CellType())
    for part in _contents(value):
        made.cell_contents = again(part)
    return made


def _partial(value: Any, again: Again, keep: Keep, _fresh: bool) -> Any:
    keywords = {name: again(part) for name, part in value.keywords.items()}
    return keep(functools.partial(again(value.func), *map(again, value.args), **keywords))


def _reference(value: Any, again: Again, keep: Keep, fresh: bool) -> Any:
    there = value()
    return value if fresh or again(there) is there else keep(weakref.ref(again(there)))


def _container(value: Any, again: Again, keep: Keep) -> Any:
    made = keep(value.copy())
    if len(value) > _MOST:
        return made
    made.clear()
    if type(value) in _MAPPINGS:
        made.update((again(key), again(part)) for key, part in value.items())
    else:
        (made.update if isinstance(value, set) else made.extend)(map(again, value))
    return made


def _of_another_kind(value: Any, again: Again, keep: Keep, _fresh: bool) -> Any:
    if type(value) is tuple:
        return keep(tuple(map(again, value)))
    if type(value) in CONTAINERS:
        return _container(value, again, keep)
    if isinstance(value, _NO_STATE) or not hasattr(value, "__dict__"):
        return value
    made = keep(object.__new__(type(value)))
    vars(made).update((name, again(part)) for name, part in vars(value).items())
    return made


_MAKERS: dict[type, Callable[[Any, Again, Keep, bool], Any]] = {
    Tensor: lambda value, _again, keep, fresh: keep(value.detach().clone()) if fresh else value,
    nn.Module: lambda value, _again, _keep, _fresh: value,
    types.FunctionType: _function,
    types.MethodType: lambda value, again, keep, _fresh: keep(
        types.MethodType(again(value.__func__), again(value.__self__))
    ),
    types.CellType: _cell,
    functools.partial: _partial,
    weakref.ref: _reference,
}
