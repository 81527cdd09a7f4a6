"""What the gradient methods share: questions about samples, the clean inputs or noisy ones, at the input or a layer."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from xai_fast.core.layers import Grid, Layer, checked_grid, layer_names
from xai_fast.engine import Cost, Recipe
from xai_fast.engine.evaluate import Answers, Evaluate, InputGradient, LayerResponse
from xai_fast.engine.gradients.backward import Rule
from xai_fast.engine.recipe import Variants
from xai_fast.engine.reducers.clean import CleanFormula
from xai_fast.engine.reducers.maps import Parts, SampleMaps, Stored, Whole
from xai_fast.engine.reducers.on_grid import OnGrid
from xai_fast.engine.samplers.clean import Clean
from xai_fast.engine.samplers.path import Source

from .base import AbstractMethod, Resolution

# (what the gradient is taken by (rows, ...), the gradient (rows, K, ...)) to maps (rows, K, ...)
Formula = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Asked:
    """What a method asks about the samples of a source, and how the answers make a map of each.

    Attributes:
        variants: rows, those of one sample after each other.
        evaluate: what is asked about each.
        parts: what each row contributes.
        whole: what the sum of a sample's parts becomes; None: it is the map.
        per_sample: rows per sample.
    """

    variants: Variants
    evaluate: Evaluate
    parts: Parts
    whole: Whole | None = None
    per_sample: int = 1


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AbstractGradientMethod(AbstractMethod):
    """A method that is made of gradients by the input or by one layer's output.

    Args:
        model: a module, a callable or an `Engine`.
        layer: None for the input.
        grid: at a layer, how the map is read as (N, C, h, w): the extents (h, w), or a function from the layer's
            shape (N, ...); None leaves the map in that shape.
    """

    layer: Layer | None = None
    grid: Grid = None

    def layers(self, inputs: Tensor) -> tuple[str, ...]:
        """The layer, where one was chosen."""
        return () if self.layer is None else self.engine.layers(self.layer, inputs)

    @property
    def units(self) -> str:
        """By the registry; at a layer, per unit of what that returns."""
        return super().units if self.layer is None else super().units.replace("input unit", "layer unit")

    @property
    def per_pixel(self) -> bool:
        """At the input; a layer has positions of its own."""
        return super().per_pixel and self.layer is None

    @property
    def linear(self) -> bool:
        """Whether the map of a sample is a linear function of its gradient, the same for every sample."""
        return False

    @abstractmethod
    def asked(self, source: Source, inputs: Tensor) -> Asked:
        """What is asked about the samples of a source, which are made of `inputs` (N, C, *S)."""

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """The questions about the clean inputs."""
        inputs = in_single(inputs)
        source = Clean(inputs, sample_ids)
        asked = self.asked(source, inputs)
        if asked.variants is source:
            reduce = CleanFormula(lambda rows, found: asked.parts(rows, found)[0])
            return self.on_grid(Recipe(clean=asked.evaluate, reduce=reduce), inputs)
        maps = SampleMaps(asked.parts, asked.whole, asked.per_sample, Stored())
        return self.on_grid(Recipe(variants=asked.variants, evaluate=asked.evaluate, reduce=maps), inputs)

    def on_grid(self, recipe: Recipe, inputs: Tensor) -> Recipe:
        """The recipe whose maps at a layer are read as the caller's `grid` says; itself where that says nothing.

        Raises:
            ValueError: as `Engine.readings`.
        """
        if self.layer is None or self.grid is None:
            return recipe
        (reading,) = self.engine.readings(self.layers(inputs), inputs, self.grid)
        return dataclasses.replace(recipe, reduce=OnGrid(recipe.reduce, reading))

    def per_sample(self, shape: tuple[int, ...]) -> Cost:
        """Rows of the questions about one sample of shape (C, *S): a formula of one gradient, unless a method says."""
        return Cost(forwards=1, backwards=1)

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        return self.per_sample(shape)

    def _formula(self, source: Source, inputs: Tensor, formula: Formula, ask: Rule | Evaluate = "gradient") -> Asked:
        """One row per sample, and a formula of what the gradient is taken by and of the gradient.

        The gradient is by a rule for ReLUs, or what a question of the method's own answers.
        """

        def parts(rows: Tensor, answers: Answers) -> tuple[Tensor, Tensor]:
            at, gradient, groups = _found(answers, lambda: samples_of(source, rows, inputs), rows)
            return formula(at, gradient), groups

        if isinstance(ask, str):
            layers = self.layers(inputs)
            ask = LayerResponse(layers, ask) if layers else InputGradient(ask)
        return Asked(source, ask, parts)

    def _check(self) -> None:
        object.__setattr__(self, "grid", checked_grid(self.grid))
        if self.grid is not None and self.layer is None:
            raise ValueError("`grid` says how a layer is read, and `layer` is None: the input; name a layer")
        if self.layer is not None:
            if isinstance(self.layer, list | tuple):
                raise ValueError("`layer` came as a list; a gradient method takes one layer, or None for the input")
            if self.layer != "auto":
                object.__setattr__(self, "layer", layer_names(self.engine.model, self.layer)[0])


def in_single(inputs: Tensor) -> Tensor:
    """Inputs in half precision as float32, so that what is added to them and subtracted from them is not rounded."""
    return inputs.float() if inputs.dtype in (torch.float16, torch.bfloat16) else inputs


def samples_of(source: Source, samples: Tensor, inputs: Tensor) -> Tensor:
    """The samples themselves (samples, C, *S), in the inputs' dtype."""
    if isinstance(source, Clean):
        return inputs[samples.to(inputs.device)]
    out = torch.empty(len(samples), *inputs.shape[1:], dtype=inputs.dtype, device=inputs.device)
    source.write(samples, out)
    return out


def _found(answers: Answers, at_input: Callable[[], Tensor], rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the gradient is taken by, the gradient, and the samples (or groups of them) it is of."""
    if answers.gradient is None:
        response = answers.responses[0]
        assert response.gradient is not None
        return response.activation, response.gradient, rows
    if answers.groups is not None:
        return answers.gradient, answers.gradient, answers.groups  # a sum has no one input
    return at_input(), answers.gradient, rows
