"""The engine: one prepared model, shared by every method that explains it."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from xai_fast.core.arguments import Arguments
from xai_fast.core.borrowed import WritesWeightsError
from xai_fast.core.layers import Grid, Layer, TokenPlaces, layer_names
from xai_fast.core.objective import Objective
from xai_fast.core.prepared import Prepared
from xai_fast.core.scores import class_names
from xai_fast.core.targets import Target
from xai_fast.core.turns import turn_of
from xai_fast.images.known import known

from .asked import asking
from .decisions import Decisions
from .inputs import checked, refuse_single_image, refuse_text_first
from .looking import Looking, Readings
from .recipe import Recipe
from .reducers.clean import clean_scores
from .settings import Mode, Plan, Settings
from .store import ModelStore

if TYPE_CHECKING:
    from .run import Outcome

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
        memory_limit: bytes that a batch may take, and those that are kept of what was prepared for other calls; None
            takes a share of what is free, and an eighth of memory. Out of memory halves the batch.
        compile: True compiles the prepared model with `torch.compile`. "auto" compiles where the first call gains by
            it, which this version never assumes; False never.
        deterministic: run under `torch.use_deterministic_algorithms`.
        progress: True for a bar, or a callable (rows done, rows in total).
        output: from what the model returns to (rows, K) scores; found by itself in tensors, `.logits`, tuples, dicts.
        preprocess: how a photograph becomes an input: a callable from a PIL image to (C, H, W).
        classes: names of the outputs.
        frozen: True promises that the model does not change, and saves the comparison: only the engine's first call
            makes it. `refresh` still prepares anew.
        decisions: `engine.decisions` of another engine of this model, to run as that one does from then on: nothing is
            timed (what does not stand in it is settled by fixed rules), and on the same machine with as many threads
            maps are equal to the byte.
        args: what the model gets behind the batch and is not explained, by position: a tuple. A tensor of N rows, N
            being the inputs of a call, follows its sample: every variant of a sample meets its row. Such models run
            whole, row for row, uncaptured. Everything else is passed as it is, tensors as they are now.
        kwargs: the same by name: a dict.
        prepare: "auto" runs the first calls on the plain tier (one row at a time through a plain copy of the model)
            until what is in sight and was seen of their work pays for preparing; True prepares at once. What the tiers
            answer differs by rounding. Another setting than the defaults of `mode`, `plan`, `batch_size`,
            `memory_limit` or `compile` prepares at once, too.
        devices: GPUs among which the variants of a call are shared, the model's own among them, such as
            ("cuda:0", "cuda:1"); each gets a copy of the model, and maps are the same up to rounding. None: the
            model's own alone.

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
        decisions: Decisions | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        prepare: bool | Literal["auto"] = "auto",
        devices: Sequence[str | torch.device] | None = None,
    ) -> None:
        if not callable(model):
            raise TypeError(f"`model` came as {type(model).__name__}; give a torch.nn.Module or a callable")
        self.model = model
        self.settings = Settings(
            mode=mode,
            plan=plan,
            batch_size=batch_size,
            memory_limit=memory_limit,
            compile=compile,
            deterministic=deterministic,
            progress=progress,
            output=output,
            frozen=frozen,
            decisions=decisions,
            args=args,
            kwargs=kwargs,
            prepare=prepare,
            devices=devices,
        )
        self._preprocess, self._classes = preprocess, class_names(classes)
        arguments = Arguments(args, {} if kwargs is None else kwargs)
        self.store = ModelStore(model, frozen=frozen, limit=memory_limit, decisions=decisions, arguments=arguments)

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
        chosen = self.settings
        settings = f"mode={chosen.mode!r}, plan={chosen.plan!r}, batch_size={chosen.batch_size!r}"
        return f"Engine({type(self.model).__name__}, {settings})"

    @property
    def preprocess(self) -> Callable[[Any], Tensor] | None:
        """How a photograph becomes an input: as given, or as `xf.load` registered it; None where that is not known."""
        return self._preprocess or known(self.model)[0]

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the outputs: as given, or as `xf.load` registered them."""
        return self._classes or known(self.model)[1]

    def like(
        self, *, preprocess: Callable[[Any], Tensor] | None = None, classes: Sequence[str] | None = None
    ) -> Engine:
        """An engine of the same model with the same settings, and other preprocessing or names where they are given."""
        chosen = {setting.name: getattr(self.settings, setting.name) for setting in dataclasses.fields(self.settings)}
        return Engine(self.model, preprocess=preprocess or self.preprocess, classes=classes or self.classes, **chosen)

    @property
    def decisions(self) -> Decisions:
        """What was timed or fixed for the model so far, on its record; see there, and the argument of that name."""
        return self.store.contents().decisions

    def refresh(self) -> None:
        """Forgets everything prepared, for changes of the model that cannot be seen, or under a `frozen` engine."""
        self.store.refresh()

    def scores(self, inputs: Tensor, target: Target = None) -> Tensor:
        """The scores that a method would explain: (N,), or (N, K) for a target of that shape.

        Args:
            inputs: (N, C, *S), floating.
            target: as for every method.
        """
        outcome, objective = self.run(lambda _inputs: Recipe(clean_scores()), inputs, target)
        scores = outcome.scores if objective.several else outcome.scores[:, 0]
        return scores.to(inputs.device)

    def run(
        self,
        recipe_of: Callable[[Tensor], Recipe],
        inputs: Tensor,
        target: Target,
        objective_of: Callable[..., Objective] = Objective,
    ) -> tuple[Outcome, Objective]:
        """Checks the arguments, then runs the recipe that `recipe_of` makes of the inputs on the model's device.

        `objective_of` makes what is explained of the target, as `Objective` does.
        """
        from .run import run  # the plans behind it are many, and a method is made without them

        inputs = checked(inputs)
        refuse_single_image(inputs, self.model)
        with self.turn(len(inputs)):
            for settings in (self.settings, dataclasses.replace(self.settings, prepare=True)):
                objective = objective_of(target, len(inputs), settings.output, self.classes)
                with asking(objective, target, settings.output):
                    recipe = recipe_of(self.adopt(inputs))
                with suppress(WritesWeightsError):  # then the model prepared, on weights of its own
                    return run(settings, self.store, recipe, inputs, objective), objective
        raise AssertionError("what is prepared borrows no weights")

    @contextmanager
    def turn(self, samples: int | None = None) -> Iterator[None]:
        """One call, on so many inputs if that is known; see `ModelStore.turn`."""
        refuse_text_first(self.model)
        with self.store.turn(samples, deterministic=self.settings.deterministic):
            yield

    def adopt(self, inputs: Tensor) -> Tensor:
        """The inputs on the model's device, detached, before anything is prepared."""
        return self.store.adopt(inputs)

    def layers(self, layer: Layer, inputs: Tensor, *, several: bool = False) -> tuple[str, ...]:
        """Names of the given layers; "auto" for inputs (N, C, *S) is found by `Looking.chosen`.

        Raises:
            TypeError, ValueError: as `xai_fast.core.layers.layer_names` and `choose_layers`.
        """
        python = isinstance(self.model, nn.Module) and not isinstance(self.model, torch.jit.ScriptModule)
        if not (isinstance(layer, str) and layer == "auto") or not python:
            return layer_names(self.model, layer)
        with self._looking(len(inputs)) as looking:
            return looking.chosen(inputs, several=several)

    def readings(self, layers: Sequence[str], inputs: Tensor, grid: Grid = None, *, flat: bool = False) -> Readings:
        """How what layers return is a grid over inputs (N, C, *S); see `Looking.readings`."""
        with self._looking(len(inputs)) as looking:
            return looking.readings(layers, inputs, grid, flat=flat)

    def activations(self, layers: Sequence[str], shape: Sequence[int]) -> tuple[Tensor, ...]:
        """What layers return for one input of shape (C, *S), without contents; see `Looking.activations`."""
        with self._looking() as looking:
            return looking.activations(layers, shape)

    def tokens(self, inputs: Tensor, grid: tuple[int, ...] | None = None) -> TokenPlaces:
        """Where a transformer's tokens lie over inputs (N, C, *S); see `Looking.tokens`."""
        with self._looking(len(inputs)) as looking:
            return looking.tokens(inputs, grid)

    def blocks(self, inputs: Tensor) -> tuple[str, ...]:
        """Names of a transformer's blocks on inputs (N, C, *S); see `Looking.blocks`."""
        with self._looking(len(inputs)) as looking:
            return looking.blocks(inputs)

    @contextmanager
    def _looking(self, samples: int | None = None) -> Iterator[Looking]:
        with self.turn(samples):
            yield self.store.looking(self.settings.output)

    def prepared(self, anchors: frozenset[str], inputs: Tensor, *, exact: bool = False) -> Prepared:
        """The prepared model for these anchors; see `ModelStore.prepare`."""
        return self.store.prepare(self.settings, anchors, inputs, exact=exact)

    def prepare(self, inputs: Tensor) -> None:
        """Makes the model ready for inputs like these, so that the first call on them need not.

        No call runs on the plain tier from then on. Methods that look at a layer have a copy of their own, which their
        first call prepares.

        Args:
            inputs: (N, C, *S), floating, of which the first is looked at.
        """
        inputs = checked(inputs)
        with self.turn(len(inputs)):
            self.store.contents().eager = True
            self.prepared(frozenset(), self.adopt(inputs))

    def explain_plan(self, method: Any, inputs: Tensor) -> str:
        """What `method` would do with `inputs`, in words: rows, plan, chunk size, op backends, preparation time.

        Prepares the model if that has not happened yet; runs none of the method's rows.
        """
        from .describe import describe

        return describe(self.settings, self.store, method, inputs)
