"""What has been prepared for a model, kept weakly beside it, and whether it still is that model."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from xai_fast.core.copies import has_hooks
from xai_fast.core.fingerprint import Fingerprint
from xai_fast.core.hooks import on_all_modules
from xai_fast.core.prepared import Prepared
from xai_fast.core.turns import turn_of

from .looking import Looked

Key = tuple[frozenset[str], bool, bool]  # layers that are looked at, halves, compiled


@dataclass
class Store:
    """What has been prepared for one model; never refers to that model, so that it can be kept weakly beside it."""

    fingerprint: Fingerprint | None = None
    prepared: dict[Key, Prepared] = field(default_factory=dict)
    looked: Looked = field(default_factory=Looked)
    fresh: bool = False  # whether something was prepared in this turn
    world: tuple[Any, ...] = ()  # what else it depends on, as that was when the first of this was prepared

    def clear(self) -> None:
        """Forgets all of it."""
        self.prepared.clear()
        self.looked.clear()


_STORES: weakref.WeakKeyDictionary[nn.Module, Store] = weakref.WeakKeyDictionary()


class Kept:
    """What one engine keeps of its model.

    Args:
        model: a module, or any callable.
        frozen: whether it is promised not to change.
    """

    def __init__(self, model: Any, *, frozen: bool) -> None:
        self._model, self._frozen, self._turn = model, frozen, turn_of(model)
        self._own: Store | None = None
        self._compared: Store | None = None  # in this turn, or once where frozen, with the model as it is
        self._running: tuple[int, int] | None = None  # the thread whose turn it is, and in which fork

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Waits for all other calls about the model; gives whether this one is no part of another of the engine's."""
        with self._turn.taken():
            if self._in_turn:
                yield False
                return
            self._running = self._here()
            try:
                self._begin()
                yield True
                self._settle()
            finally:
                self._running = None

    def current(self) -> Store:
        """What is prepared for the model as it is now; emptied where the model has changed. Compared once per turn."""
        store = self.store()
        if not isinstance(self._model, nn.Module) or (store is self._compared and self._is_current(store)):
            return store
        changed = store.fingerprint is None or not store.fingerprint.matches(self._model)
        if changed or store.world != self._world:
            store.clear()
            store.fingerprint, store.world = Fingerprint(self._model), self._world
        self._compared = store
        return store

    def store(self) -> Store:
        """What is prepared, for whatever the model was then."""
        if self._compared is not None and (self._in_turn or self._frozen):
            return self._compared
        # Hooks of the user's travel with the copy and may refer to the model, which would then live for ever.
        if self._own or not isinstance(self._model, nn.Module) or has_hooks(self._model):
            self._own = self._own or Store()
            return self._own
        return _STORES.setdefault(self._model, Store())

    def remember(self, key: Key, prepared: Prepared) -> None:
        """Keeps what was made ready, or found to fit inputs of another shape."""
        store = self.store()
        store.fresh |= store.prepared.get(key) is not prepared
        store.prepared[key] = prepared
        if not isinstance(self._model, nn.Module):
            return
        if not prepared.copied:
            # What holds the caller's own object must die with this engine, not live as long as the object.
            _STORES.pop(self._model, None)
            self._own = store
        if store.fingerprint is not None:
            store.fingerprint = store.fingerprint.ignoring(self._model, prepared.exempt)

    def refresh(self) -> None:
        """Forgets everything."""
        self._own = self._compared = None
        if isinstance(self._model, nn.Module):
            _STORES.pop(self._model, None)

    @property
    def _in_turn(self) -> bool:
        return self._running == self._here()

    def _here(self) -> tuple[int, int]:
        # A thread that a fork left behind may have had the number that another gets in the child.
        return threading.get_ident(), self._turn.interrupted

    def _is_current(self, store: Store) -> bool:
        return (self._in_turn or self._frozen) and store.world == self._world

    @property
    def _world(self) -> tuple[Any, ...]:
        return self._turn.interrupted, on_all_modules()

    def _begin(self) -> None:
        """What was compared or learnt in another call is not relied on."""
        if not self._frozen:
            self._compared = None
        if not isinstance(self._model, nn.Module):
            for prepared in self.store().prepared.values():
                prepared.outputs.clear()  # what a function refers to may have changed

    def _settle(self) -> None:
        """What our own runs have changed in the caller's model, through what copies share with it, does not count."""
        store = self._compared
        if store is None or not store.fresh or store.fingerprint is None or not isinstance(self._model, nn.Module):
            return
        store.fresh = False
        if has_hooks(self._model) or not all(prepared.copied for prepared in store.prepared.values()):
            store.fingerprint = store.fingerprint.ignoring(self._model, store.fingerprint.moved(self._model))
