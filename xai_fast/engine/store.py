"""What is prepared for a model: made, found again, kept weakly beside it, and let go where the model has changed."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, device, nn

from xai_fast.core.arguments import Arguments, with_arguments
from xai_fast.core.copies import has_hooks, traits
from xai_fast.core.fingerprint import Fingerprint
from xai_fast.core.guard import untouched
from xai_fast.core.hooks import on_all_modules
from xai_fast.core.layers import Recorded, modules_of
from xai_fast.core.prepared import HALVES, Prepared, reducible
from xai_fast.core.turns import turn_of
from xai_fast.graph.timed import recording

from .decisions import Decisions
from .looking import Looked, Looking, adopted
from .precision import halves_pay
from .settings import Settings
from .used import Key, Shape, Use

if TYPE_CHECKING:
    from .replay.local.boxed import Boxed
    from .replay.local.local import Asked, Local
    from .replay.tail import Tail

_EIGHTH = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8  # bytes


@dataclass
class Contents:
    """What has been prepared for one model; never refers to that model, so that it can be kept weakly beside it."""

    fingerprint: Fingerprint | None = None
    prepared: dict[Key, Prepared] = field(default_factory=dict)
    looked: Looked = field(default_factory=Looked)
    use: Use = field(default_factory=Use)
    decisions: Decisions = field(default_factory=Decisions)
    work: dict[tuple[frozenset[str], Shape], int] = field(default_factory=dict)  # forwards, by layers and shape
    eager: bool = False  # whether every call is to run on what is prepared
    fresh: bool = False  # whether something was prepared in this turn
    elsewhere: dict[device, ModelStore] = field(default_factory=dict)  # copies on other devices, see `Spread`
    world: tuple[Any, ...] = ()  # what else it depends on, as that was when the first of this was prepared

    def clear(self) -> None:
        """Forgets all of it."""
        for kept in (self.prepared, self.looked, self.use, self.work, self.elsewhere):
            kept.clear()
        if not self.decisions.given:
            self.decisions.entries.clear()


_BESIDE: weakref.WeakKeyDictionary[nn.Module, Contents] = weakref.WeakKeyDictionary()


class ModelStore:
    """What is prepared for one engine's model.

    Args:
        model: a module, or any callable.
        frozen: whether it is promised not to change.
        decisions: of another run, which this one is to repeat; None to find out.
        limit: bytes that what is prepared may take, beside what the call at hand needs; None takes an eighth of memory.
        arguments: what the model gets beside the batch.
    """

    def __init__(
        self,
        model: Any,
        *,
        frozen: bool,
        limit: int | None = None,
        decisions: Decisions | None = None,
        arguments: Arguments,
    ) -> None:
        self.model, self._arguments = with_arguments(model, arguments), arguments
        self._frozen, self._limit, self._turn = frozen, limit, turn_of(model)
        self._decisions = decisions
        self._own = self._given()
        self._compared: Contents | None = None  # in this turn, or once where frozen, with the model as it is
        self._ran: list[Recorded] = []
        self._running: tuple[int, int] | None = None  # the thread whose turn it is, and in which fork

    @contextmanager
    def turn(self, samples: int | None = None, *, deterministic: bool = False) -> Iterator[None]:
        """One call: no other runs beside it, the model is compared once, and everything is put back afterwards.

        The copy is shared by all engines of the model and takes hooks while it runs; what cannot be copied is shared by
        everybody. A turn in a turn is part of it. `samples` are the inputs of the call, where they are known.
        """
        with self._turn.taken():
            if samples is not None and self._arguments:
                self._arguments.begin(samples)
            if self._in_turn:
                yield
                return
            self._running = self._here()
            try:
                self._begin()
                with untouched(deterministic=deterministic), recording(self.contents().decisions):
                    yield
                self._settle()
                self._let_go()
            finally:
                self._running = None
                self._ran.clear()

    def prepare(self, settings: Settings, anchors: frozenset[str], inputs: Tensor, *, exact: bool = False) -> Prepared:
        """The model made ready for these anchors and verified on inputs of this shape: now, unless it is already.

        Args:
            settings: of the engine.
            anchors: names of the layers that will be looked at.
            inputs: (N, C, *S) on the model's device.
            exact: whether full precision is needed whatever the mode.
        """
        from xai_fast.core.prepare import prepare, verify  # tracing is slow to import, and nothing has run before this

        contents, anchors = self.current(), modules_of(anchors)
        key = self._key(settings, anchors, exact=exact)
        prepared, example = contents.prepared.get(key), inputs[:1]
        if prepared is not None and tuple(inputs.shape[1:]) not in prepared.footprints:
            prepared = prepared if verify(prepared, self.model, example) is None else None
        if prepared is None:
            fold = key not in contents.prepared  # what was prepared for another shape and fails here stays unfolded
            others = [other.module for other in contents.prepared.values() if other.copied]
            prepared = prepare(
                self.model,
                anchors,
                fast=key[1],
                compiled=key[2],
                example=example,
                fold=fold,
                others=[module for module in others if isinstance(module, nn.Module)],
            )
            prepared.anchors = anchors
        prepared.say_whether_apart(self.model, inputs, new=prepared is not contents.prepared.get(key))
        if prepared is not contents.prepared.get(key):
            self._remember(key, prepared)
        contents.use.note(key, tuple(inputs.shape[1:]))
        return prepared

    def is_ready(self, settings: Settings, anchors: frozenset[str], inputs: Tensor) -> bool:
        """Whether `prepare` has nothing left to do."""
        if not self.contents().prepared:
            return False  # and the model need not be compared
        prepared = self.current().prepared.get(self._key(settings, modules_of(anchors), exact=False))
        return prepared is not None and tuple(inputs.shape[1:]) in prepared.footprints

    def seen(self, anchors: frozenset[str], shape: tuple[int, ...]) -> int:
        """How many forwards of a row of this shape calls with these anchors have taken."""
        return self.contents().work.get((anchors, shape), 0)

    def saw_work(self, anchors: frozenset[str], shape: tuple[int, ...], forwards: int) -> None:
        """Adds to what `seen` says."""
        work = self.contents().work
        work[anchors, shape] = work.get((anchors, shape), 0) + forwards

    def tail(self, prepared: Prepared, layers: tuple[str, ...], inputs: Tensor) -> Tail | str:
        """The tail behind layers, cut off and compared with the model now unless it is there; or why there is none."""
        from .replay.tail import tail_of

        return tail_of(prepared, layers, inputs)

    def local(self, prepared: Prepared, variants: Boxed, inputs: Tensor, asked: Asked) -> Local | str:
        """The local plan for variants, timed and compared with the model now unless it is there; or why not."""
        from .replay.local.local import local_of

        return local_of(prepared, variants, inputs, asked)

    def adopt(self, inputs: Tensor) -> Tensor:
        """The inputs on the model's device, detached, before anything is prepared."""
        return adopted(self.model, inputs)

    def looking(self, output: Callable[[Any], Tensor] | None) -> Looking:
        """What looks at the model's layers, in a turn, and remembers what it sees."""
        return Looking(self.model, self.current().looked, output, self._ran)

    @property
    def recorded(self) -> Recorded | None:
        """The last forward of a plain copy that has run in this turn beside the answers."""
        return self._ran[-1] if self._ran else None

    def run_next(self, sample: Tensor | None) -> None:
        """The rows that run next are variants of these samples, whose further inputs follow them."""
        if self._arguments:
            self._arguments.of(sample)

    def saw(self, layers: Sequence[str], shape: Sequence[int], activations: Sequence[Tensor]) -> None:
        """Remembers what layers return for an input of shape (C, *S), without its contents."""
        self.contents().looked.saw(layers, shape, activations)

    def current(self) -> Contents:
        """What is prepared for the model as it is now; emptied where the model has changed. Compared once per turn."""
        store = self.contents()
        if not isinstance(self.model, nn.Module) or (store is self._compared and self._is_current(store)):
            return store
        changed = store.fingerprint is None or not store.fingerprint.matches(self.model)
        if changed or store.world != self._world:
            store.clear()
            store.fingerprint, store.world = Fingerprint(self.model), self._world
        self._compared = store
        return store

    def contents(self) -> Contents:
        """What is prepared, for whatever the model was then."""
        if self._compared is not None and (self._in_turn or self._frozen):
            return self._compared
        # Hooks of the user's travel with the copy and may refer to the model, which would then live for ever.
        if self._own or not isinstance(self.model, nn.Module) or has_hooks(self.model):
            self._own = self._own or Contents()
            return self._own
        return _BESIDE.setdefault(self.model, Contents())

    def _remember(self, key: Key, prepared: Prepared) -> None:
        """Keeps what was made ready, or found to fit inputs of another shape."""
        store = self.contents()
        store.fresh |= store.prepared.get(key) is not prepared
        store.prepared[key] = prepared
        if not isinstance(self.model, nn.Module):
            return
        if not prepared.copied:
            # What holds the caller's own object must die with this engine, not live as long as the object.
            _BESIDE.pop(self.model, None)
            self._own = store
        if store.fingerprint is not None:
            store.fingerprint = store.fingerprint.ignoring(self.model, prepared.exempt)

    def refresh(self) -> None:
        """Forgets everything."""
        self._own, self._compared = self._given(), None
        if isinstance(self.model, nn.Module):
            _BESIDE.pop(self.model, None)

    def _let_go(self) -> None:
        """Forgets what was not used for longest, until the rest fits."""
        contents = self.contents()
        for key, shape in contents.use.too_much(contents.prepared, _EIGHTH if self._limit is None else self._limit):
            prepared = contents.prepared[key]
            prepared.forget(shape)
            # Without a recording there is nothing that another shape could be recorded like.
            if not prepared.footprints or (not prepared.captured and not prepared.resists):
                del contents.prepared[key]
        contents.use.tidy()

    def _reduces(self, settings: Settings) -> bool:
        """Whether the model runs in half precision: it was asked for, fits, and the device computes that faster."""
        if settings.mode == "exact" or not isinstance(self.model, nn.Module) or not reducible(self.model):
            return False
        _, device = traits(self.model)
        return device is not None and device.type in HALVES and halves_pay(device, HALVES[device.type])

    def _key(self, settings: Settings, anchors: frozenset[str], *, exact: bool) -> Key:
        # A compiled forward has no layers to look at, so it serves only calls without anchors.
        return anchors, not exact and self._reduces(settings), settings.compile is True and not anchors

    def _given(self) -> Contents | None:
        """Contents of this engine alone, where decisions are given: others have decided otherwise."""
        return None if self._decisions is None else Contents(decisions=self._decisions.repeated())

    @property
    def _in_turn(self) -> bool:
        return self._running == self._here()

    def _here(self) -> tuple[int, int]:
        # A thread that a fork left behind may have had the number that another gets in the child.
        return threading.get_ident(), self._turn.interrupted

    def _is_current(self, store: Contents) -> bool:
        return (self._in_turn or self._frozen) and store.world == self._world

    @property
    def _world(self) -> tuple[Any, ...]:
        return self._turn.interrupted, on_all_modules(), self._arguments.following if self._arguments else ()

    def _begin(self) -> None:
        """What was compared or learnt in another call is not relied on."""
        if not self._frozen:
            self._compared = None
        if not isinstance(self.model, nn.Module):
            for prepared in self.contents().prepared.values():
                prepared.outputs.clear()  # what a function refers to may have changed

    def _settle(self) -> None:
        """What our own runs have changed in the caller's model, through what copies share with it, does not count."""
        store = self._compared
        if store is None or not store.fresh or store.fingerprint is None or not isinstance(self.model, nn.Module):
            return
        store.fresh = False
        if has_hooks(self.model) or not all(prepared.copied for prepared in store.prepared.values()):
            store.fingerprint = store.fingerprint.ignoring(self.model, store.fingerprint.moved(self.model))
