"""What lies inside Python values, read without running anything of the user's: no properties, no comparisons.

What is no atom (`atoms`) is opened: by a kind below for its type, which lists the objects inside.
"""

from __future__ import annotations

import collections
import functools
import itertools
import re
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .atoms import ROOTS, VALUES, is_users, module_of, root_of

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OF_TORCH = frozenset(vars(nn.Module()))  # its own attributes, among them flags of training, which no copy follows
# Of the standard library and of torch, objects of these alone are opened: others refer to half of the process.
_OPENED_OF_PYTHON = ("types.SimpleNamespace", "argparse.Namespace")
_OPENED_OF_TORCH = ("torch.nn.", "torch.distributions.", "torch.ao.")
# What a class says about itself, not what its methods read.
_ABOUT = re.compile(r"__(?!call|getattr|getitem)\w+__|_abc_impl")
# What only objects hold that are busy with the world outside: an open file, a connection, a thread.
_BUSY = ("_thread", "threading", "queue", "_queue", "io", "_io", "socket", "logging", "subprocess", "multiprocessing")


Named = dict[Any, Any]


class Kind(NamedTuple):
    """How values of one type are looked into.

    Attributes:
        raw: every object on which the inside depends, keys included, in a fixed order; fast.
        named: the same objects by name, without those that do not matter.
        sequence: whether the names are positions.
    """

    raw: Callable[[Any], list[Any]]
    named: Callable[[Any], Named]
    sequence: bool = False


def kind_of(value: Any) -> Kind | None:
    """How to look into a value that is no atom; None where only its identity can be known."""
    cls = type(value)
    if issubclass(cls, nn.Module):
        return SCRIPT if issubclass(cls, torch.jit.ScriptModule) else MODULE
    if issubclass(cls, type):
        return CLASS
    if found := next((kind for base, kind in _KINDS.items() if issubclass(cls, base)), None):
        return found
    return OBJECT if _is_opened(value) else None


def _is_opened(value: Any) -> bool:
    cls = type(value)
    module = module_of(cls)
    if root_of(module) == "torch":
        return module.startswith(_OPENED_OF_TORCH)
    if root_of(module) in ROOTS:
        return f"{module}.{cls.__name__}" in _OPENED_OF_PYTHON
    if not is_users(cls) and any(root_of(module_of(type(part))) in _BUSY for part in _kept_in(value).values()):
        return False
    return bool(_stores(cls))


# Modules


def _module_raw(module: nn.Module) -> list[Any]:
    own = module.__dict__
    parameters, buffers, children = own["_parameters"], own["_buffers"], own["_modules"]
    raw = [type(module), *own, *own.values(), *parameters, *parameters.values(), *buffers, *buffers.values()]
    raw += children
    raw += children.values()
    for kind in HOOKS:
        raw += own[kind]
    return raw


def _module_named(module: nn.Module) -> Named:
    own = module.__dict__
    named: Named = {"class": type(module)}
    named.update((key, value) for key, value in own.items() if key not in _OF_TORCH)
    for kind in ("_parameters", "_buffers", "_modules"):
        named.update(((kind, key), value) for key, value in own[kind].items())
    # Handles are numbered from one counter and never reused, so the keys identify the hooks.
    named.update(((kind, i), key) for kind in HOOKS for i, key in enumerate(own[kind]))
    return named


def _script_named(module: Any) -> Named:
    named: Named = {}
    for path, part in module.named_modules():
        named |= {(path, "parameter", name): value for name, value in part.named_parameters(recurse=False)}
        named |= {(path, "buffer", name): value for name, value in part.named_buffers(recurse=False)}
        for name in part._concrete_type.get_attributes() if hasattr(part, "_concrete_type") else ():
            named.setdefault((path, "attribute", name), part._c.getattr(name))
    return named


# Classes, functions, objects


def _class_raw(cls: type) -> list[Any]:
    own = type.__dict__["__dict__"].__get__(cls)
    return [*cls.__bases__, *own, *own.values()]


def _class_named(cls: type) -> Named:
    own = type.__dict__["__dict__"].__get__(cls)
    named: Named = {("base", i): base for i, base in enumerate(cls.__bases__)}
    named.update((key, value) for key, value in own.items() if not _ABOUT.fullmatch(key))
    return named


def _cells(function: Any) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            yield None


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> tuple[str, ...]:
    """Names that code, and the functions written inside it, may look up among its module's."""
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return tuple(dict.fromkeys([*code.co_names, *itertools.chain.from_iterable(map(_names, inner))]))


def _outside(function: Any) -> tuple[str, ...]:
    """Names of the module's that a function of the user's may look up."""
    return _names(function.__code__) if is_users(function) else ()


def _function_raw(function: Any) -> list[Any]:
    raw = [function.__code__, function.__defaults__, function.__kwdefaults__]
    if function.__closure__ is not None:
        raw += _cells(function)
    raw += map(function.__globals__.get, _outside(function))
    if function.__dict__:
        raw += function.__dict__
        raw += function.__dict__.values()
    return raw


def _function_named(function: Any) -> Named:
    # A copy of a model shares its functions, and a captured graph may have taken in what they read.
    named: Named = {"code": function.__code__, "defaults": function.__defaults__, "keywords": function.__kwdefaults__}
    named |= {("cell", i): value for i, value in enumerate(_cells(function))}
    named |= {("global", name): function.__globals__.get(name) for name in _outside(function)}
    return named | {("attribute", key): value for key, value in function.__dict__.items()}


@functools.lru_cache(maxsize=1024)
def _stores(cls: type) -> tuple[tuple[Any, bool], ...]:
    """The descriptors behind which a class keeps what its instances hold, and whether each is their dictionary."""
    found: list[tuple[Any, bool]] = []
    for base in cls.__mro__:
        own = type.__dict__["__dict__"].__get__(base)
        slots = [(name, value) for name, value in own.items() if isinstance(value, types.MemberDescriptorType)]
        found += [(value, False) for name, value in slots if name != "__dict__"]
        if isinstance(own.get("__dict__"), types.GetSetDescriptorType | types.MemberDescriptorType):
            found.append((own["__dict__"], True))
    return tuple(found)


def _object_raw(value: Any) -> list[Any]:
    raw: list[Any] = [type(value)]
    for store, is_dictionary in _stores(type(value)):
        try:
            held: Any = store.__get__(value)
        except AttributeError:  # an empty slot
            held = {} if is_dictionary else None
        raw += [*held, *dict.values(held)] if is_dictionary else [held]
    return raw


def _kept_in(value: Any) -> Named:
    named: Named = {}
    for store, is_dictionary in _stores(type(value)):
        try:
            held = store.__get__(value)
        except AttributeError:
            continue
        named.update(held if is_dictionary else {store.__name__: held})
    return named


def _object_named(value: Any) -> Named:
    return {("class",): type(value)} | _kept_in(value)


# Containers


def _listed(read: Callable[[Any], Any]) -> Kind:
    """A kind whose parts have places; what an instance of a subclass keeps beside them comes last."""

    def raw(value: Any) -> list[Any]:
        return [*read(value), *_beside(value)]

    return Kind(raw, lambda value: dict(enumerate(raw(value))), sequence=True)


def _beside(value: Any) -> list[Any]:
    if type(value).__module__ in ("builtins", "collections", "torch"):
        return []
    return _object_raw(value)


def _dict_raw(value: Any) -> list[Any]:
    return [*dict.keys(value), *dict.values(value), *_beside(value)]


def _dict_named(value: Any) -> Named:
    named: Named = {}
    for key, part in dict.items(value):
        named[_key(key)] = part
    return named | {("beside", i): part for i, part in enumerate(_beside(value))}


def _set_named(value: Any) -> Named:
    """Members without places: atoms are known by what they are, others by identity."""
    return {_key(part): None for part in value}


def _key(value: Any) -> Any:
    """A name that compares as the value does, without asking an object of the user's."""
    return (type(value), repr(value)) if type(value) in VALUES else id(value)


def _parts(*names: str) -> Kind:
    """A kind of built-in objects that hold a few others."""

    def raw(value: Any) -> list[Any]:
        return [getattr(value, name) for name in names]

    return Kind(raw, lambda value: dict(zip(names, raw(value), strict=True)))


def _of(named: Callable[[Any], Named]) -> Kind:
    return Kind(lambda value: list(named(value).values()), named)


MODULE, SCRIPT = Kind(_module_raw, _module_named), _of(_script_named)
CLASS, OBJECT = Kind(_class_raw, _class_named), Kind(_object_raw, _object_named)
_KINDS: dict[type, Kind] = {
    dict: Kind(_dict_raw, _dict_named),
    list: _listed(list.__iter__),
    tuple: _listed(tuple.__iter__),
    collections.deque: _listed(collections.deque.__iter__),
    set: Kind(lambda value: [*set.__iter__(value)], _set_named),
    frozenset: Kind(lambda value: [*frozenset.__iter__(value)], _set_named),
    types.MappingProxyType: Kind(lambda value: [*value, *value.values()], lambda value: dict(value.items())),
    types.FunctionType: Kind(_function_raw, _function_named),
    types.MethodType: _parts("__func__", "__self__"),
    functools.partial: _parts("func", "args", "keywords"),
    staticmethod: _parts("__func__"),
    classmethod: _parts("__func__"),
    property: _parts("fget", "fset"),
    np.ndarray: _listed(lambda array: np.ndarray.view(array, np.ndarray).flat),  # of objects: others are memory
}
