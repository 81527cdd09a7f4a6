"""What a model was made of when somebody looked: modules, hooks, Python attributes, and where its tensors are.

A tree of what was found, which keeps nothing alive but values that cannot change. To compare costs a fraction of what
building it does: where an object still holds the very same ones, only those among them that can change are looked at.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .atoms import ATOMS, is_atom, same_atoms
from .opening import MODULE, SCRIPT, Kind, Named, kind_of
from .tensor_parts import parts, plain_traits

Path = tuple[Any, ...]
_DEEPEST = 24  # objects inside objects; modules count as well
_MOST = 20_000  # objects that are opened
_LONGEST = 10_000  # what a container may hold; beyond, its identity and length are what is known
_MEMORY = (bytearray, memoryview)


class Snapshot:
    """What `model` is made of now, except for what lies at the paths to be ignored."""

    def __init__(self, model: nn.Module, ignoring: Collection[Path] = ()) -> None:
        self._tree = _Builder(frozenset(ignoring)).keep(model, ())

    def tensors(self, model: nn.Module) -> list[Any] | None:
        """The tensors of `model`, plain and dense, each once and in a fixed order, among them what keeps them alive.

        None where anything else in the model differs.
        """
        found: list[Any] = []
        with torch._C.DisableTorchFunctionSubclass():
            try:
                return found if self._tree.same(model, found) else None
            except Exception:  # memory that was let go, an object that cannot be read any more
                return None

    def changes(self, model: nn.Module) -> frozenset[Path]:
        """Where Python attributes of `model` differ; parameters and buffers are left out, and what tensors contain."""
        with torch._C.DisableTorchFunctionSubclass():
            return frozenset(self._tree.changes(model, ()))


class _Kept:
    """What is known of a value that can change. `address` is where it was when it was last compared."""

    address: int

    def same(self, value: Any, found: list[Any]) -> bool:
        """Whether `value` is as it was; adds its tensors, and what they need to stay alive, to `found`."""
        raise NotImplementedError

    def changes(self, value: Any, path: Path) -> Iterator[Path]:
        """Paths of what differs in `value`."""
        if not self.same(value, []):
            yield path


class _Anything(_Kept):
    """What is to be ignored."""

    def same(self, value: Any, found: list[Any]) -> bool:
        return True


class _Again(_Kept):
    """What was met before: the same object as there, and so looked at already."""

    def __init__(self, first: _Kept) -> None:
        self.first = first

    def same(self, value: Any, found: list[Any]) -> bool:
        return self.first.address == id(value)


class _Opaque(_Kept):
    """An object that cannot be looked into: only another one differs."""

    def __init__(self, value: Any) -> None:
        self.address, self.kind = id(value), type(value)
        try:
            self.size = len(value) if issubclass(self.kind, list | dict | tuple | set) else 0
            self.alive = weakref.ref(value)
        except TypeError:
            self.alive = None

    def same(self, value: Any, found: list[Any]) -> bool:
        if self.address != id(value) or self.kind is not type(value):
            return False
        return (self.alive is None or self.alive() is value) and (not self.size or len(value) == self.size)


class _Tensor(_Kept):
    """A tensor, by its traits; what it contains is compared by whoever asked for `found`."""

    def __init__(self, value: Tensor) -> None:
        self.address, self.kind, self.version = id(value), type(value), _version(value)
        self.plain = plain_traits(value)
        self.traits = self.plain or parts(value)[0]

    def same(self, value: Any, found: list[Any]) -> bool:
        if type(value) is not self.kind:
            return False
        self.address = id(value)
        if self.plain is None:
            traits, held = parts(value)
            found += held
            return traits == self.traits
        found.append(value)
        dtype, device, shape, stride = self.plain  # as in `plain_traits`, without what follows from these
        return (
            value.dtype is dtype
            and value.layout is torch.strided
            and value.shape == shape
            and value.stride() == stride
            and value.device == device
            and not value.is_neg()
            and not (dtype.is_complex and value.is_conj())
        )

    def changes(self, value: Any, path: Path) -> Iterator[Path]:
        if self.address != id(value) or self.version != _version(value):
            yield path


class _Memory(_Kept):
    """An array or buffer of bytes outside torch."""

    def __init__(self, value: Any) -> None:
        self.address, self.traits = id(value), self._traits(value)

    def same(self, value: Any, found: list[Any]) -> bool:
        self.address = id(value)
        if self._traits(value) != self.traits:
            return False
        array = np.ascontiguousarray(_as_array(value))
        if array.nbytes:
            memory = (ctypes.c_char * array.nbytes).from_address(array.ctypes.data)
            found += [array, torch.frombuffer(memory, dtype=torch.uint8)]
        return True

    @staticmethod
    def _traits(value: Any) -> tuple[Any, ...] | None:
        if not _is_memory(value):
            return None
        array = _as_array(value)
        return type(value), array.dtype, array.shape


class _Inside(_Kept):
    """An object and what lies in it."""

    def __init__(self, value: Any, kind: Kind) -> None:
        self.address, self.type, self.kind = id(value), type(value), kind
        # Of modules identity counts as well: names and hooks belong to it.
        self.alive = weakref.ref(value) if kind is MODULE else None
        self.items: dict[Any, Any] = {}

    def settle(self, value: Any, named: Named) -> None:
        """Remembers which objects lie inside, so that the next look at the same ones is short."""
        raw = self.kind.raw(value)
        self.ids = [*map(id, raw)]
        places = {address: place for place, address in enumerate(self.ids)}
        deep = [(id(named[name]), kept) for name, kept in self.items.items() if name in named and _is_deep(kept)]
        no_atoms = {address for address, _ in deep}  # to ask takes longest where the answer is no
        # Kept alive: nothing else gets their addresses.
        self.atoms = [part for part in raw if type(part) in ATOMS or (id(part) not in no_atoms and is_atom(part))]
        # What is made anew whenever it is asked for has no place.
        self.stable = all(address in places for address, _ in deep)
        self.deep = [(places[address], kept) for address, kept in deep if address in places]

    def same(self, value: Any, found: list[Any]) -> bool:
        if type(value) is not self.type or (self.alive is not None and self.alive() is not value):
            return False
        self.address = id(value)
        raw = self.kind.raw(value)
        if not self.stable or [*map(id, raw)] != self.ids:
            return self._alike(value, found)
        for place, kept in self.deep:  # noqa: SIM110 - as a generator it takes a fifth more
            if not kept.same(raw[place], found):
                return False
        return True

    def _alike(self, value: Any, found: list[Any]) -> bool:
        """The long way, for other objects that may be equal."""
        named = self.kind.named(value)
        for name, kept in self.items.items():
            if isinstance(kept, _Anything):
                continue
            if name not in named or not _agrees(kept, named[name], found):
                return False
        if any(name not in self.items for name in named):
            return False
        self.settle(value, named)
        return True

    def changes(self, value: Any, path: Path) -> Iterator[Path]:
        if type(value) is not self.type:
            yield path
            return
        self.address = id(value)
        named = self.kind.named(value)
        if self.kind.sequence and len(named) != len(self.items):
            yield path
            return
        for name in {**self.items, **named}:
            if self.kind is MODULE and isinstance(name, tuple) and name[0] in ("_parameters", "_buffers"):
                continue
            below = (*path, name)
            if name not in self.items or name not in named:
                yield below
            elif isinstance(kept := self.items[name], _Kept):
                yield from kept.changes(named[name], below)
            elif not same_atoms(kept, named[name]):
                yield below


class _Builder:
    """Makes the tree; every object stands in it once."""

    def __init__(self, ignoring: frozenset[Path]) -> None:
        self._ignoring, self._opened = ignoring, 0
        self._met: dict[int, tuple[Any, _Kept]] = {}  # with the objects, so that no address is used again meanwhile

    def keep(self, value: Any, path: Path) -> Any:
        """What is to be known of a value: an atom itself, or what compares it."""
        if self._ignoring and path in self._ignoring:
            return _Anything()
        if type(value) in ATOMS or is_atom(value):
            return value
        if id(value) in self._met:
            return _Again(self._met[id(value)][1])
        kept = self._first(value, path)
        if isinstance(kept, _Inside):
            named = kept.kind.named(value)
            kept.items = {name: self.keep(part, (*path, name)) for name, part in named.items()}
            # What appears and disappears there is to be ignored as well.
            kept.items |= {each[-1]: _Anything() for each in self._ignoring if each[:-1] == path}
            kept.settle(value, named)
        return kept

    def _first(self, value: Any, path: Path) -> _Kept:
        try:
            kept = self._looked_into(value, path)
        except Exception:  # whatever an object refuses
            kept = _Opaque(value)
        self._met[id(value)] = value, kept
        return kept

    def _looked_into(self, value: Any, path: Path) -> _Kept:
        if issubclass(type(value), Tensor):
            return _Tensor(value)
        if _is_memory(value):
            return _Memory(value)
        kind = kind_of(value)
        if kind is None:
            return _Opaque(value)
        if kind not in (MODULE, SCRIPT):
            self._opened += 1
            if len(path) > _DEEPEST or self._opened > _MOST or _is_long(value):
                return _Opaque(value)
        return _Inside(value, kind)


def _is_deep(kept: Any) -> bool:
    return isinstance(kept, _Kept) and not isinstance(kept, _Anything)


def _agrees(kept: Any, value: Any, found: list[Any]) -> bool:
    return kept.same(value, found) if isinstance(kept, _Kept) else same_atoms(kept, value)


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _is_long(value: Any) -> bool:
    return issubclass(type(value), list | tuple | dict | set | frozenset) and len(value) > _LONGEST


def _is_memory(value: Any) -> bool:
    """Whether every byte of a value outside torch says something."""
    if issubclass(type(value), np.ndarray):
        return not value.dtype.hasobject
    return type(value) in _MEMORY


def _as_array(value: Any) -> np.ndarray:
    if issubclass(type(value), np.ndarray):
        return np.ndarray.view(value, np.ndarray)
    return np.asarray(value)
