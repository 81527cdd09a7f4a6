"""The engine: one prepared model, shared by every method that explains it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from xai_fast.core.copies import traits
from xai_fast.core.guard import untouched
from xai_fast.core.layers import Grid, Layer, layer_names, modules_of
from xai_fast.core.objective import Objective
from xai_fast.core.prepared import HALVES, Prepared, reducible
from xai_fast.core.scores import checked_output, class_names
from xai_fast.core.targets import Target
from xai_fast.core.turns import turn_of
from xai_fast.images.known import known

from .asked import asking
from .inputs import checked, refuse_single_image
from .looking import Looking, Readings, adopted
from .precision import halves_pay
from .recipe import Recipe
from .reducers.clean import clean_scores
from .store import Kept

if TYPE_CHECKING:
    from .run import Outcome

Mode = Literal["exact", "fast", "turbo"]
Plan = Literal["auto", "dense", "local", "tail"]

_ENGINES: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Engine]] = weakref.WeakKeyDictionary()


class Engine:
    """A model made ready to answer many questions, and the settings under which it answers.

    The caller's model is never modified: the engine works on its own copy, frozen, in eval mode, with batch
    normalisation folded and weights laid out channels-last. The copy is made on first use, kept as long as the model
    lives, and made again when the model has changed: every call compares every byte of its parameters and buffers, its
    modules and hooks, and what its modules and their classes hold in Python (numbers, strings, flags, tensors and
    arrays, inside lists, dicts and objects; what its functions have around them). That takes as long as reading the
    weights once. What the forward itself changes from call to call does not count. For anything subtler, such as what
    a file or an extension holds, see `refresh`.

    Args:
        model: a `torch.nn.Module`, or any callable from a batch (rows, C, *S) to its outputs. A callable is used as it
            is: nothing is folded, and layers cannot be named.
        mode: "exact" keeps the model's dtype and every evaluation the formula asks for. "fast" makes the same
            evaluations of a float32 model in bfloat16 (CPU) or float16 (CUDA) where the device computes that faster
            (timed once) and the model's output stays what it was (within a tenth of its largest value in bfloat16, a
            fiftieth in float16), scores in float32; regions that re-run carry how they differ from a float32 run.
            Models that are float64, float16 or bfloat16, wholly or in part, or that return float64, run as they are.
            "turbo" is "fast", and methods that sample, and state what their maps err by, stop where that is at most
            their `tolerance`.
        plan: "auto" takes the cheapest exact plan. "tail": what precedes the layer that a method looks at runs once,
            only what follows it runs again. "local": where variants differ from the input inside a box, each layer
            re-runs only the region that the change reaches. "dense": every variant runs the whole model. A forced plan
            that does not apply is a ValueError with the reason.
        batch_size: model rows per forward, or "auto": timed on the first rows of a call and kept.
        memory_limit: bytes that a batch may take; None takes a share of what is free. Out of memory halves the batch.
        compile: True compiles the prepared model with `torch.compile`. "auto" compiles where the first call gains by
            it, which this version never assumes; False never.
        deterministic: run under `torch.use_deterministic_algorithms`.
        progress: True for a bar, or a callable (rows done, rows in total).
        output: from what the model returns to (rows, K) scores; found by itself in tensors, `.logits`, tuples, dicts.
        preprocess: how a photograph becomes an input: a callable from a PIL image to (C, H, W).
        classes: names of the outputs.
        frozen: True promises that the model does not change, and saves the comparison: only the engine's first call
            makes it. `refresh` still prepares anew.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        mode: Mode = "exact",
        plan: Plan = "auto",
        batch_size: int | Literal["auto"] = "auto",
        memory_limit: int | None = None,
        compile: bool | Literal["auto"] = "auto",
        deterministic: bool = False,
        progress: bool | Callable[[int, int], Any] = False,
        output: Callable[[Any], Tensor] | None = None,
        preprocess: Callable[[Any], Tensor] | None = None,
        classes: Sequence[str] | None = None,
        frozen: bool = False,
    ) -> None:
        if not callable(model):
            raise TypeError(f"`model` came as {type(model).__name__}; give a torch.nn.Module or a callable")
        _one_of("mode", mode, get_args(Mode))
        _one_of("plan", plan, get_args(Plan))
        _one_of("compile", compile, ("auto", True, False))
        _one_of("frozen", frozen, (True, False))
        if batch_size != "auto" and not _positive(batch_size):
            raise ValueError(f'`batch_size` came as {batch_size!r}; give "auto" or a number of rows, at least 1')
        if memory_limit is not None and not _positive(memory_limit):
            raise ValueError(f"`memory_limit` came as {memory_limit!r}; give a number of bytes, or None")
        self.model = model
        self.mode: Mode = mode
        self.plan: Plan = plan
        self.batch_size: int | Literal["auto"] = batch_size
        self.memory_limit = memory_limit
        self.compile: bool | Literal["auto"] = compile
        self.deterministic = deterministic
        self.progress = progress
        self.output = checked_output(output)
        self.frozen = frozen
        self._preprocess, self._classes = preprocess, class_names(classes)
        self._kept = Kept(model, frozen=frozen)

    @classmethod
    def of(cls, model: Any) -> Engine:
        """The engine of a model: itself if it is one, the one in use for that model, or a new one with the defaults."""
        if isinstance(model, Engine):
            return model
        if not isinstance(model, nn.Module):
            return cls(model)
        with turn_of(model).taken():
            reference = _ENGINES.get(model)
            engine = reference() if reference is not None else None
            if engine is None:
                engine = cls(model)
                _ENGINES[model] = weakref.ref(engine)
            return engine

    def __repr__(self) -> str:
        settings = f"mode={self.mode!r}, plan={self.plan!r}, batch_size={self.batch_size!r}"
        return f"Engine({type(self.model).__name__}, {settings})"

    @property
    def preprocess(self) -> Callable[[Any], Tensor] | None:
        """How a photograph becomes an input: as given, or as `xf.load` registered it; None where that is not known."""
        return self._preprocess or known(self.model)[0]

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the outputs: as given, or as `xf.load` registered them."""
        return self._classes or known(self.model)[1]

    def refresh(self) -> None:
        """Forgets everything prepared, for changes of the model that cannot be seen, or under a `frozen` engine."""
        self._kept.refresh()

    def scores(self, inputs: Tensor, target: Target = None) -> Tensor:
        """The scores that a method would explain: (N,), or (N, K) for a target of that shape.

        Args:
            inputs: (N, C, *S), floating.
            target: as for every method.
        """
        outcome, objective = self.run(lambda _inputs: Recipe(clean_scores()), inputs, target)
        scores = outcome.scores if objective.several else outcome.scores[:, 0]
        return scores.to(inputs.device)

    def run(self, recipe_of: Callable[[Tensor], Recipe], inputs: Tensor, target: Target) -> tuple[Outcome, Objective]:
        """Checks the arguments, then runs the recipe that `recipe_of` makes of the inputs on the model's device."""
        from .run import run  # the plans behind it are many, and a method is made without them

        inputs = checked(inputs)
        refuse_single_image(inputs, self.model)
        with self.turn():
            objective = Objective(target, len(inputs), self.output, self.classes)
            with asking(objective, target, self.output):
                recipe = recipe_of(self.adopt(inputs))
            return run(self, recipe, inputs, objective), objective

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One call: no other runs beside it, the model is compared once, and everything is put back afterwards.

        The copy is shared by all engines of the model and takes hooks while it runs; what cannot be copied is shared by
        everybody. A turn in a turn is part of it.
        """
        with self._kept.turn() as first, ExitStack() as stack:
            if first:
                stack.enter_context(untouched(deterministic=self.deterministic))
            yield

    def adopt(self, inputs: Tensor) -> Tensor:
        """The inputs on the model's device, detached, before anything is prepared."""
        return adopted(self.model, inputs)

    def layers(self, layer: Layer, inputs: Tensor, *, several: bool = False) -> tuple[str, ...]:
        """Names of the given layers; "auto" for inputs (N, C, *S) is found by `Looking.chosen`.

        Raises:
            TypeError, ValueError: as `xai_fast.core.layers.layer_names` and `choose_layers`.
        """
        python = isinstance(self.model, nn.Module) and not isinstance(self.model, torch.jit.ScriptModule)
        if not (isinstance(layer, str) and layer == "auto") or not python:
            return layer_names(self.model, layer)
        with self._looking() as looking:
            return looking.chosen(inputs, several=several)

    def readings(self, layers: Sequence[str], inputs: Tensor, grid: Grid = None, *, flat: bool = False) -> Readings:
        """How what layers return is a grid over inputs (N, C, *S); see `Looking.readings`."""
        with self._looking() as looking:
            return looking.readings(layers, inputs, grid, flat=flat)

    def activations(self, layers: Sequence[str], shape: Sequence[int]) -> tuple[Tensor, ...]:
        """What layers return for one input of shape (C, *S), without contents; see `Looking.activations`."""
        with self._looking() as looking:
            return looking.activations(layers, shape)

    @contextmanager
    def _looking(self) -> Iterator[Looking]:
        with self.turn():
            yield Looking(self.model, self._kept.current().looked, self.output)

    def saw(self, layers: Sequence[str], shape: Sequence[int], activations: Sequence[Tensor]) -> None:
        """Remembers what layers return for an input of shape (C, *S), without its contents."""
        self._kept.store().looked.saw(layers, shape, activations)

    def prepared(self, anchors: frozenset[str], inputs: Tensor, *, exact: bool = False) -> Prepared:
        """The prepared model for these anchors, verified on inputs of this shape; in full precision where `exact`."""
        from xai_fast.core.prepare import prepare, verify  # tracing is slow to import, and nothing has run before this

        store, anchors = self._kept.current(), modules_of(anchors)
        # A compiled forward has no layers to look at, so it serves only calls without anchors.
        key = (anchors, not exact and self._reduces(), self.compile is True and not anchors)
        example = inputs[:1]
        prepared = store.prepared.get(key)
        if prepared is not None and tuple(inputs.shape[1:]) not in prepared.footprints:
            prepared = prepared if verify(prepared, self.model, example) is None else None
        if prepared is None:
            fold = key not in store.prepared  # what was prepared for another shape and fails on this one stays unfolded
            prepared = prepare(self.model, anchors, fast=key[1], compiled=key[2], example=example, fold=fold)
            self._kept.remember(key, prepared)
        return prepared

    def _reduces(self) -> bool:
        """Whether the model runs in half precision: it was asked for, fits, and the device computes that faster."""
        if self.mode == "exact" or not isinstance(self.model, nn.Module) or not reducible(self.model):
            return False
        _, device = traits(self.model)
        return device is not None and device.type in HALVES and halves_pay(device, HALVES[device.type])

    def explain_plan(self, method: Any, inputs: Tensor) -> str:
        """What `method` would do with `inputs`, in words: rows, plan, chunk size, op backends, preparation time.

        Prepares the model if that has not happened yet; runs none of the method's rows.
        """
        from .describe import describe

        return describe(self, method, inputs)


def _one_of(name: str, value: object, fits: Sequence[object]) -> None:
    if not any(value is option or (isinstance(value, str) and value == option) for option in fits):
        raise ValueError(f"`{name}` came as {value!r}; give one of {', '.join(map(repr, fits))}")


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
