"""What the gradient methods share: the gradient is taken by the input, or by a chosen layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from xai_fast.core.layers import Layer, layer_names
from xai_fast.engine import Recipe
from xai_fast.engine.evaluate import Answers, InputGradient, LayerResponse
from xai_fast.engine.reducers.clean import CleanFormula

from .base import AbstractMethod

# (what the gradient is taken by (rows, ...), the gradient (rows, K, ...)) to maps (rows, K, ...)
Formula = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AbstractGradientMethod(AbstractMethod):
    """A method that is a formula of a gradient by the input or by one layer's output."""

    layer: Layer | None = None

    def layers(self, inputs: Tensor) -> tuple[str, ...]:
        """The layer, where one was chosen."""
        return () if self.layer is None else self.engine.layers(self.layer, inputs)

    def _gradient_recipe(self, inputs: Tensor, formula: Formula) -> Recipe:
        layers = self.layers(inputs)
        if layers:
            return Recipe(
                clean=LayerResponse(layers),
                reduce=CleanFormula(lambda _sample, answers: formula(*_at_layer(answers))),
            )

        def at_input(sample: Tensor, answers: Answers) -> Tensor:
            assert answers.gradient is not None
            return formula(inputs[sample.to(inputs.device)], answers.gradient)

        return Recipe(clean=InputGradient(), reduce=CleanFormula(at_input))

    def _check(self) -> None:
        if self.layer is not None:
            if isinstance(self.layer, list | tuple):
                raise ValueError("`layer` came as a list; a gradient method takes one layer, or None for the input")
            if self.layer != "auto":
                object.__setattr__(self, "layer", layer_names(self.engine.model, self.layer)[0])


def _at_layer(answers: Answers) -> tuple[Tensor, Tensor]:
    response = answers.responses[0]
    assert response.gradient is not None
    return response.activation, response.gradient
