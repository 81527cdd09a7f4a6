"""Deep feature factorization: which few concepts does a layer see in these images, and where?"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, final

import torch
from torch import Tensor

from xai_fast.core.layers import Grid, Layer, checked_grid
from xai_fast.core.objective import Objective
from xai_fast.core.scores import find_scores
from xai_fast.engine import Cost, Recipe
from xai_fast.engine.evaluate import LayerActivation
from xai_fast.engine.reducers.concepts import Concepts
from xai_fast.engine.run import Outcome
from xai_fast.images.pictures import as_bytes
from xai_fast.results.concept_maps import ConceptMaps
from xai_fast.results.filter_maps import resized

from .base import AbstractMethod, Resolution
from .checks import check_count, check_seed
from .filters import checked_layer, filters_of


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DeepFeatureFactorization(AbstractMethod):
    r"""A layer's activations over all positions of all images as a product of a few concepts (Collins et al. 2018).

    .. math:: A \approx W H, \quad W \ge 0, \; H \ge 0

    arXiv:1806.10206. Each row of A holds the channels at one position of one image, each row of H is a concept, and W
    says how strongly each concept is there. It is found by hierarchical alternating least squares on the device of the
    model, jointly over the images: a concept is the same thing in all of them. The same images give the same concepts.

    The classes that a concept speaks for are those whose scores rise most when the layer returns that concept alone at
    every position, as strongly as it is anywhere, over a layer that returns nothing.

    Values are in [0, 1]: a concept's strength as a share of its largest in the batch. They are about no class.

    Deviations: the paper factorises layers behind a ReLU; where a channel is negative, its least value in the batch is
    taken away before (grad-cam takes it away always). Classes are ranked by that rise, and not by the scores
    themselves, in which the bias of the last layer, or a class token beside the concept, would speak as well. In a
    transformer each token is given the concept.

    Args:
        model: a module or an `Engine`; a plain callable has no layers.
        layer: "auto", a name or a module, as for `FilterActivation`.
        grid: how the layer's output lies over the input, where that is not clear: (h, w), or a function from it to
            (N, C, h, w).
        n_concepts: k, how many; strongest first.
        top_k: how many classes pictures show of each.
        seed: of the random projection from which the factorisation starts.

    Calling the method gives `ConceptMaps`, which draws and saves them.

    Returns (`attribute`): (N, k, *S) resized to the input, bilinear with `align_corners=False`; with
    `resolution="native"` (N, k, *s) on the layer's own grid.

    Cost: one row forward per input, and k + 1 rows behind the layer for the batch. What the layer returns for the whole
    batch is kept until the end, in float32.

    Raises:
        ValueError: more concepts than channels or positions, a layer whose output is no grid, or a `target`.
    """

    layer: Layer = "auto"
    grid: Grid = None
    n_concepts: int = 8
    top_k: int = 2
    seed: int = 0

    @property
    def signed(self) -> bool:
        """Strengths are never negative."""
        return False

    def __call__(self, inputs: Tensor, target: None = None) -> ConceptMaps:  # type: ignore[override] - its own result
        """The concepts with what they are about, and ways to draw and save them.

        Args:
            inputs: (N, C, *S), floating, in the space the model sees.
            target: has no meaning here.
        """
        _refuse(target)
        made: list[Concepts] = []

        def recipe_of(adopted: Tensor) -> Recipe:
            recipe = self.recipe(adopted, "native")
            assert isinstance(recipe.reduce, Concepts)
            made.append(recipe.reduce)
            return recipe

        outcome, _ = self.engine.run(recipe_of, inputs, _nothing)
        (found,) = made
        return ConceptMaps(
            values=outcome.values,
            concepts=found.concepts.to(inputs.device),
            gains=found.gains.to(inputs.device),
            explained=found.explained,
            layer=outcome.layers[0],
            top_k=self.top_k,
            size=tuple(inputs.shape[2:]),
            method=repr(self),
            evaluations=outcome.evaluations,
            photos=as_bytes(inputs, self.engine.preprocess),
            seconds=outcome.seconds,
            preprocess=self.engine.preprocess,
            classes=self.engine.classes,
        )

    def layers(self, inputs: Tensor) -> tuple[str, ...]:
        """The layer."""
        return self.engine.layers(self.layer, inputs)

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """One pass over the clean inputs, then what each concept does behind the layer."""
        name, reading, channels = filters_of(self.engine, self.layer, self.grid, None, inputs)
        (like,) = self.engine.activations((name,), inputs.shape[1:])
        positions = len(inputs) * prod(like.shape[1:]) // len(channels)
        most = min(len(channels), positions)
        if self.n_concepts > most:
            raise ValueError(
                f"`n_concepts` is {self.n_concepts}, and layer {name!r} has {len(channels)} channels at no more than "
                f"{positions} positions of these {len(inputs)} inputs; give at most {most}"
            )
        reducer = Concepts(
            inputs,
            name,
            reading,
            count=self.n_concepts,
            seed=self.seed,
            scores_of=self.engine.settings.output or find_scores,
        )
        return Recipe(reducer, clean=LayerActivation((name,)), then=reducer.then)

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        return Cost(forwards=2 + self.n_concepts)

    def _run(
        self, inputs: Tensor, target: Any, resolution: Resolution, sample_ids: Tensor | None
    ) -> tuple[Outcome, Objective]:
        _refuse(target)
        outcome, objective = super()._run(inputs, _nothing, resolution, sample_ids)
        if resolution == "native":
            return outcome, objective
        values = resized(outcome.values, tuple(inputs.shape[2:]))
        return type(outcome)(**{**vars(outcome), "values": values}), objective

    def _check(self) -> None:
        object.__setattr__(self, "layer", checked_layer(self.engine, self.layer))
        object.__setattr__(self, "grid", checked_grid(self.grid))
        check_count(self.n_concepts, "n_concepts")
        check_count(self.top_k, "top_k", 0)
        check_seed(self.seed)


def _refuse(target: Any) -> None:
    if target is not None:
        raise ValueError(
            f"`target` came as {target!r}, and concepts are about no class; leave it out, and read the classes that "
            "each speaks for from the result"
        )


def _nothing(_raw: Any, sample: Tensor) -> Tensor:
    """A target that asks the model for no class, so that models without class scores have concepts too."""
    return torch.zeros(len(sample))
