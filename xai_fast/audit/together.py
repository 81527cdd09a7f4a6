"""Several methods on one clean pass, and the embedding of the layer that it looks at."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from xai_fast.engine import Recipe
from xai_fast.engine.evaluate import Answers


class Together:
    """Reducers that fold the same clean answers, and what a layer makes of the inputs, averaged over positions."""

    def __init__(self, recipes: Sequence[Recipe], embeds: str | None) -> None:
        self._reducers = [recipe.reduce for recipe in recipes]
        self._layers = recipes[0].clean.layers
        self._reading = None if embeds is None else recipes[0].readings.get(embeds)
        self._embeds = embeds
        self.embedding: list[Tensor] = []
        self.maps: list[Tensor] = []

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """See `Reducer`."""
        for reducer in self._reducers:
            reducer.clean(sample, answers)
        if self._embeds is not None:
            activation = answers.responses[self._layers.index(self._embeds)].activation
            grid = activation if self._reading is None else self._reading(activation)
            self.embedding.append(grid.flatten(2).mean(2).float().cpu() if grid.ndim > 2 else grid.float().cpu())

    def update(self, rows: Tensor, answers: Answers) -> None:
        """See `Reducer`; only one reducer has variants."""
        self._reducers[0].update(rows, answers)

    def finish(self) -> Tensor:
        """The maps of the first; `maps` are those of all."""
        self.maps = [reducer.finish() for reducer in self._reducers]
        return self.maps[0]
