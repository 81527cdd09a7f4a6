"""DeepLIFT: how the score's difference to that of a reference comes about, element by element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from xai_fast.core.indices import both
from xai_fast.core.layers import Grid, Layer
from xai_fast.engine import Cost, Recipe
from xai_fast.engine.evaluate import Answers, Multipliers
from xai_fast.engine.reducers.gap import WithGap
from xai_fast.engine.reducers.maps import SampleMaps, Stored
from xai_fast.engine.samplers.clean import Clean
from xai_fast.engine.samplers.path import Repeated, Source
from xai_fast.engine.samplers.references import References
from xai_fast.images.baselines import Baseline

from .base import Resolution
from .checks import check_baselines
from .gradient import AbstractGradientMethod, Asked, in_single, samples_of


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AbstractDeepLift(AbstractGradientMethod):
    """The rescale rule against one reference or several."""

    layer: Layer | None = None
    grid: Grid = None
    baselines: Baseline = 0.0

    def asked(self, source: Source, inputs: Tensor) -> Asked:
        """The multipliers of each sample against each of its references."""
        references = self._references(inputs)
        count = references.count
        pairs = Repeated(source, count)
        layers = self.layers(inputs)

        def number(rows: Tensor) -> Tensor:
            return references.number(pairs.sample_of(rows), rows % count)

        def parts(rows: Tensor, answers: Answers) -> tuple[Tensor, Tensor]:
            if layers:
                response = answers.responses[0]
                assert response.reference is not None
                multipliers, difference = response.gradient, response.activation - response.reference
            else:
                samples = samples_of(source, pairs.source_of(rows), inputs)
                multipliers, difference = answers.gradient, samples - references.of(number(rows))
            assert multipliers is not None
            return multipliers * difference[:, None] / count, both(pairs.source_of, rows)

        evaluate = Multipliers(pairs.source_of, number, references.of, layers)
        return Asked(pairs, evaluate, parts, None, count)

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """The pairs of inputs and references."""
        inputs = in_single(inputs)
        asked = self.asked(Clean(inputs, sample_ids), inputs)
        maps = SampleMaps(asked.parts, asked.whole, asked.per_sample, Stored())
        reduce = WithGap(maps, len(inputs), asked.variants.sample_of)
        return self.on_grid(Recipe(reduce, variants=asked.variants, evaluate=asked.evaluate), inputs)

    def _references(self, inputs: Tensor) -> References:
        return References(self.baselines, inputs, self.engine.preprocess)

    def per_sample(self, shape: tuple[int, ...]) -> Cost:
        """The pairs."""
        several = isinstance(self.baselines, Tensor) and self.baselines.ndim == len(shape) + 1
        pairs = len(self.baselines) if isinstance(self.baselines, Tensor) and several else 1
        return Cost(forwards=2 * pairs, backwards=pairs)

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        rows = self.per_sample(shape)
        return Cost(1 + rows.forwards, rows.backwards)

    def _check(self) -> None:
        super()._check()
        check_baselines(self.baselines)


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DeepLift(AbstractDeepLift):
    r"""DeepLIFT by the rescale rule (Shrikumar, Greenside and Kundaje 2017, arXiv:1704.02685, section 3.5.1).

    .. math:: A_i = m_i\,(x_i - b_i), \qquad m_{\text{in}} = m_{\text{out}}\,
              \frac{y(x) - y(b)}{\text{in}(x) - \text{in}(b)} \quad\text{at each elementwise function}

    and the adjoint at everything linear.

    Follows captum where the paper is silent: max pooling passes the difference to the places of both maxima, and where
    an input hardly differs from the reference's the derivative stands in. Every activation counts, whether a module, a
    function, in place or used several times. Quotients are computed in float32 or wider.

    Softmax and log-softmax are treated at the scores before them, wherever they stand, by the quotients of what they
    are made of: log softmax is z − log Σ exp z, softmax its exponential, so the probability's difference is divided by
    that of its logarithm. The paper and captum subtract the mean over classes instead, which does not add up.

    Values are in units of the score and sum to f(x) − f(b), also for probabilities and log-probabilities, whether the
    network ends in them or the target is `xf.targets.probability`, `log_probability` or `cross_entropy`. What any other
    function as target adds passes its plain gradient, and the explanation's `completeness_gap` tells.

    Args:
        model: a module or an `Engine`; it must be one that can be captured as a graph.
        layer: None for the input; a layer's name or module, for that layer's output, in its shape.
        grid: at a layer, how its map is read as (N, C, h, w): (h, w), or a function from (N, ...); None: as it lies.
        baselines: the reference: a number or one per channel in the model's space, a tensor (1, C, *S), "image_mean",
            "blur", "black" or "white".

    Returns (`attribute`): (N, C, *S); at a layer, in the layer's shape or on its grid.

    Cost: three rows forward (one alone, one of the pair each) and one backward per input; K targets share the forwards.

    Raises:
        ValueError: the rule does not exist for a node of the model, which is named: products of two values that both
            depend on the input (gates, attention), normalisation over positions; or a reference that does not fit.
    """

    def _references(self, inputs: Tensor) -> References:
        references = super()._references(inputs)
        if references.count != 1:
            raise ValueError(
                f"`baselines` hold {references.count} references and DeepLift takes one; give (1, C, ...), "
                "or use DeepLiftShap for their mean"
            )
        return references


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DeepLiftShap(AbstractDeepLift):
    r"""The mean of DeepLIFT's maps over several references (Lundberg and Lee 2017, arXiv:1705.07874, section 4.2).

    .. math:: A = \frac{1}{R} \sum_{r=1}^R A^{\text{DeepLIFT}}(x, b_r)

    The rescale rule, as in `DeepLift`. Every input is compared with every reference, and runs forward once for all that
    are compared at once; the libraries run it once for each.

    Values are in units of the score and sum to f(x) less the references' mean score, as `DeepLift` says.

    Args:
        model: a module or an `Engine`; it must be one that can be captured as a graph.
        layer: None for the input; a layer's name or module, for that layer's output, in its shape.
        grid: at a layer, how its map is read as (N, C, h, w): (h, w), or a function from (N, ...); None: as it lies.
        baselines: (R, C, *S) reference inputs; or one reference, as in `DeepLift`.

    Returns (`attribute`): (N, C, *S); at a layer, in the layer's shape or on its grid.

    Cost: at most 1 + 2R rows forward, and R backward per input; K targets share the forwards.

    Raises:
        ValueError: as `DeepLift`.
    """
