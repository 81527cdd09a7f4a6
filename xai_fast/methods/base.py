"""What every method is: settings frozen beside an engine, and a recipe made of them for each call."""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from xai_fast.core.detections import Detection
from xai_fast.core.objective import Objective
from xai_fast.core.plain import plain
from xai_fast.core.targets import Target
from xai_fast.engine import Cost, Engine, Recipe
from xai_fast.engine.inputs import checked, spatial_axes
from xai_fast.engine.run import Outcome
from xai_fast.results.explanation import Explanation

from .registry import methods

_MOST_PRINTED = 2000  # elements of a tensor in a method's text

Resolution = Literal["input", "native"]


@dataclass(frozen=True, eq=False, repr=False)
class AbstractMethod(ABC):
    """A method of attribution. Subclasses are final and add their settings as keyword-only fields.

    Args:
        model: a `torch.nn.Module`, any callable, or an `Engine` to share.
    """

    model: Any
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "engine", Engine.of(self.model))
        object.__setattr__(self, "model", self.engine.model)
        self._check()

    def attribute(
        self,
        inputs: Tensor,
        target: Target = None,
        *,
        resolution: Resolution = "input",
        sample_ids: Tensor | None = None,
    ) -> Tensor:
        """The attribution of each input, on the device and in the dtype of `inputs`.

        Args:
            inputs: (N, C, *S), floating, in the space the model sees.
            target: None (the argmax of the clean scores), an int, N ints, a LongTensor (N,) or (N, K), or a callable
                from the model's raw output, and optionally the input index of each row, to (rows,) numbers.
            resolution: "input", or "native" for a map on the method's own grid (pixel methods have no other).
            sample_ids: LongTensor (N,), by which random draws are keyed, so that an input gets the same ones in
                whatever batch it comes; None: 0 for all. They change nothing where a method draws nothing.

        Returns:
            (N, C, *S) from pixel methods, (N, 1, *S) from map methods; for (N, K) targets an axis K follows N.

        Raises:
            TypeError, ValueError: an argument does not fit; before the model runs, or where only the model's output
                tells, before any variant runs.
            NonFiniteError: the model answered NaN or Inf; names the samples and carries the maps of the others.
        """
        outcome, _ = self._run(inputs, target, resolution, sample_ids)
        return outcome.values

    def __call__(
        self,
        inputs: Tensor,
        target: Target = None,
        *,
        resolution: Resolution = "input",
        sample_ids: Tensor | None = None,
    ) -> Explanation:
        """As `attribute`, with what the map is about: scores, rows used, seconds, and ways to draw and save it."""
        outcome, objective = self._run(inputs, target, resolution, sample_ids)
        scores = outcome.scores if objective.several else outcome.scores[:, 0]
        record = objective.record
        return Explanation(
            values=outcome.values,
            target=record,
            score=scores.to(inputs.device),
            method=repr(self),
            layer=outcome.layers,
            evaluations=outcome.evaluations,
            outputs=outcome.outputs,
            completeness_gap=outcome.details.gap,
            standard_error=outcome.details.standard_error,
            fit=outcome.details.fit,
            snapshots=outcome.details.snapshots,
            seconds=outcome.seconds,
            signed=self.signed,
            class_specific=self.class_specific,
            complete=self.complete,
            units=self.units,
            per_pixel=self.per_pixel,
            preprocess=self.engine.preprocess,
            classes=self.engine.classes,
            boxes=record.shares(inputs) if isinstance(record, Detection) else None,
        )

    def cost(self, shape: Sequence[int]) -> Cost:
        """Model rows that the formula asks for, with one given target; `evaluations` is never above its forwards.

        Args:
            shape: of one input (C, *S), or of a batch (N, C, *S), which counts all of its inputs. Three numbers are one
                image and four a batch of images, unless the model's first convolution is one of signals or volumes.
        """
        shape = tuple(shape)
        if len(shape) not in (2, 3, 4, 5) or not all(isinstance(n, int) and n >= 1 for n in shape):
            raise ValueError(f"`shape` came as {shape}; give (C, H, W) for one image or (N, C, H, W) for a batch")
        one = len(shape) <= spatial_axes(self.engine.model, default=2) + 1
        return self._cost(shape) if one else self._cost(shape[1:]) * shape[0]

    def cost_of(self, inputs: Tensor) -> Cost:
        """`cost` of a batch of inputs (N, C, *S)."""
        return self._cost(tuple(inputs.shape[1:])) * len(inputs)

    # What a map means, under these settings: as the registry says of the defaults, unless a method knows better.

    @property
    def signed(self) -> bool:
        """Whether negative values have a meaning."""
        return True

    @property
    def class_specific(self) -> bool:
        """Whether another target gives another map."""
        info = methods().get(type(self).__name__)
        return info.class_specific if info else True

    @property
    def complete(self) -> str:
        """What the map sums to; "" where it sums to nothing."""
        info = methods().get(type(self).__name__)
        return info.complete if info else ""

    @property
    def units(self) -> str:
        """What one unit of the map is: "score", "score per input unit", what is made of them, or "none"."""
        info = methods().get(type(self).__name__)
        return info.units if info else "none"

    @property
    def per_pixel(self) -> bool:
        """Whether every element of the input has a value of its own, and not one of its surroundings."""
        info = methods().get(type(self).__name__)
        return info is not None and info.kind == "pixels"

    @property
    def asks_the_target(self) -> bool:
        """Whether the engine's run of `recipe`, with the caller's target, is all that a call does."""
        cls = type(self)
        return cls._run is AbstractMethod._run and cls._objective is AbstractMethod._objective

    def layers(self, inputs: Tensor) -> tuple[str, ...]:
        """Names of the layers that are looked at for these inputs; empty for methods that look at the input."""
        return ()

    @abstractmethod
    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """The method for these inputs (N, C, *S), which are on the model's device, as data for the loop."""

    @abstractmethod
    def _cost(self, shape: tuple[int, ...]) -> Cost:
        """The cost of one input of shape (C, *S)."""

    def _check(self) -> None:  # noqa: B027 - most methods have nothing more to refuse
        """Refuses settings that cannot fit any input."""

    def _run(
        self, inputs: Tensor, target: Target, resolution: Resolution, sample_ids: Tensor | None
    ) -> tuple[Outcome, Objective]:
        if resolution not in ("input", "native"):
            raise ValueError(f'`resolution` came as {resolution!r}; give "input" or "native"')
        if sample_ids is not None and (
            not isinstance(sample_ids, Tensor)
            or sample_ids.dtype is not torch.long
            or sample_ids.shape != checked(inputs).shape[:1]
        ):
            raise ValueError(f"`sample_ids` must be a LongTensor ({len(checked(inputs))},), one key per input")
        sample_ids = None if sample_ids is None else plain("sample_ids", sample_ids)
        recipe_of = functools.partial(self.recipe, resolution=resolution, sample_ids=sample_ids)
        return self.engine.run(recipe_of, inputs, target, self._objective)

    def _objective(self, *about: Any) -> Objective:
        """What is explained, of (target, N, how scores are found, names of classes)."""
        return Objective(*about)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(['engine', *self.settings_in_words()])})"

    def settings_in_words(self) -> list[str]:
        """Every setting as `name=value`, in the order of the signature."""
        return [f"{f.name}={_text(getattr(self, f.name))}" for f in dataclasses.fields(self) if f.kw_only]


def _text(value: Any) -> str:
    """A setting in words that rebuild it; of large tensors the shape alone."""
    if isinstance(value, tuple) and any(isinstance(part, Tensor) for part in value):
        return f"({', '.join(map(_text, value))})"
    if not isinstance(value, Tensor):
        return repr(value)
    if value.numel() > _MOST_PRINTED:
        return f"<tensor {tuple(value.shape)}>"
    numbers = value.tolist()
    dtype = "" if torch.tensor(numbers).dtype is value.dtype else f", dtype={value.dtype}"
    return f"tensor({numbers}{dtype})"
