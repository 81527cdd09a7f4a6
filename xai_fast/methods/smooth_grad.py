"""SmoothGrad: a gradient method's maps of many noisy copies of the input, averaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from torch import Tensor

from xai_fast.engine import Cost, Recipe
from xai_fast.engine.evaluate import InputGradient, Summed
from xai_fast.engine.reducers.maps import Aggregate, SampleMaps, Stored
from xai_fast.engine.samplers.noisy import Noisy
from xai_fast.images.preprocess import Preprocess

from .base import AbstractMethod, Resolution
from .checks import check_count, check_seed, check_sigma
from .gradient import AbstractGradientMethod, Asked, in_single
from .saliency import Saliency


@final
@dataclass(frozen=True, eq=False, repr=False)
class SmoothGrad(AbstractMethod):
    r"""The maps of a gradient method under Gaussian noise (Smilkov et al. 2017, arXiv:1706.03825, section 3).

    .. math:: A = \frac{1}{n} \sum_{j=1}^n M(x + \sigma \varepsilon_j), \qquad \varepsilon_j \sim \mathcal{N}(0, I)

    With `aggregate="square"` the mean of M² (SmoothGrad², Hooker et al. 2019, arXiv:1806.10758), with "variance" the
    mean of M² less the square of the mean (VarGrad, Adebayo et al. 2018, arXiv:1810.03307). Noise is not clipped, as in
    the paper. Draws are keyed by (seed, sample id, draw), so they do not depend on batches; captum draws from torch's
    global generator.

    Values have the wrapped method's units, squared for "square" and "variance", which are never negative.

    Args:
        model: the method to be smoothed, any gradient method; a module, a callable or an `Engine` means
            `Saliency(absolute=False)`, the paper's mean of signed gradients.
        n_samples: noisy copies per input, n.
        noise: how strong the noise is, by `relative`.
        relative: True: σ is `noise` times the image's own range, largest less smallest value, as in the paper.
            "range": σ is `noise` times the full range of a pixel, 0 to 1, wherever the image's values lie; this needs
            the model's preprocessing. False: σ is `noise` in the model's space.
        aggregate: "mean", "square" or "variance".
        antithetic: every second copy has the noise of the one before with the other sign, which cancels what is odd in
            it.
        snapshots: numbers of copies after which the map is kept as well, in the explanation's `snapshots`.
        seed: of the draws.

    Returns (`attribute`): the shape of the wrapped method's map.

    Cost: one row forward, and n times the wrapped method's rows but for its clean one; K targets share forwards. Memory
    does not grow with n. Where the mean of plain signed gradients is taken, the first layer of a captured model runs
    backward once for all copies that run together.

    Raises:
        ValueError: `relative="range"` without known preprocessing; before the model runs.
    """

    n_samples: int = field(default=50, kw_only=True)
    noise: float = field(default=0.15, kw_only=True)
    relative: bool | Literal["range"] = field(default=True, kw_only=True)
    aggregate: Literal["mean", "square", "variance"] = field(default="mean", kw_only=True)
    antithetic: bool = field(default=False, kw_only=True)
    snapshots: Sequence[int] = field(default=(), kw_only=True)
    seed: int = field(default=0, kw_only=True)
    method: AbstractGradientMethod = field(init=False)

    def __post_init__(self) -> None:
        wrapped = self.model
        if isinstance(wrapped, AbstractMethod) and not isinstance(wrapped, AbstractGradientMethod):
            raise TypeError(f"`model` came as {type(wrapped).__name__}; give a gradient method, a model or an engine")
        method = wrapped if isinstance(wrapped, AbstractGradientMethod) else Saliency(wrapped, absolute=False)
        object.__setattr__(self, "method", method)
        object.__setattr__(self, "model", method.engine)
        super().__post_init__()

    @property
    def signed(self) -> bool:
        """As the wrapped method, where its maps are averaged as they are."""
        return self.aggregate == "mean" and self.method.signed

    @property
    def class_specific(self) -> bool:
        """As the wrapped method."""
        return self.method.class_specific

    @property
    def complete(self) -> str:
        """What the wrapped method's maps sum to, at the noisy copies, where they are averaged as they are."""
        wrapped = self.method.complete if self.aggregate == "mean" else ""
        return f"{wrapped}, averaged over the noise" if wrapped and self.noise else wrapped

    @property
    def units(self) -> str:
        """The wrapped method's, or their square."""
        wrapped = self.method.units
        if self.aggregate == "mean" or wrapped == "none":
            return wrapped
        return f"({wrapped}) squared" if " " in wrapped else f"{wrapped} squared"

    @property
    def per_pixel(self) -> bool:
        """The wrapped method's."""
        return self.method.per_pixel

    def layers(self, inputs: Tensor) -> tuple[str, ...]:
        """The wrapped method's."""
        return self.method.layers(inputs)

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """The wrapped method's questions about noisy samples."""
        inputs = in_single(inputs)
        ids = torch.zeros(len(inputs), dtype=torch.long) if sample_ids is None else sample_ids.cpu()
        sigma, unit = self._sigma(inputs)
        noisy = Noisy(inputs, sigma, self.n_samples, self.seed, ids, self.antithetic, unit)
        asked = self.method.asked(noisy, inputs)
        if self.aggregate == "mean" and self.method.linear and not self.snapshots:
            return self._mean_gradient(noisy, asked)
        sink = Aggregate(len(inputs), self.n_samples, self.aggregate, self.snapshots)
        reduce = SampleMaps(asked.parts, asked.whole, asked.per_sample, sink)
        recipe = Recipe(variants=asked.variants, evaluate=asked.evaluate, reduce=reduce)
        return self.method.on_grid(recipe, inputs)

    def _mean_gradient(self, noisy: Noisy, asked: Asked) -> Recipe:
        """The gradients of an input's copies added up before they become a map."""
        share = 1 / self.n_samples

        def weight(rows: Tensor) -> Tensor:
            return torch.full((len(rows),), share, dtype=torch.float64, device=rows.device)

        summed = Summed(noisy.sample_of, weight)
        assert isinstance(asked.evaluate, InputGradient)
        reduce = SampleMaps(asked.parts, None, self.n_samples, Stored())
        return Recipe(variants=noisy, evaluate=dataclasses.replace(asked.evaluate, summed=summed), reduce=reduce)

    def _sigma(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """The noise's deviation (N,), in units of the input times the second tensor (C,), where there is one."""
        if self.relative == "range":
            preprocess = self.engine.preprocess
            if not isinstance(preprocess, Preprocess):
                raise ValueError(
                    '`relative` "range" is a share of a pixel\'s range, and how a photograph becomes an input is not '
                    "known; pass the engine `preprocess`, or give `relative=False` and `noise` in the model's space"
                )
            return torch.full((len(inputs),), float(self.noise)), torch.tensor(preprocess.std)
        if self.relative:
            flat = inputs.detach().flatten(1)
            return (self.noise * (flat.amax(1) - flat.amin(1)).double()).cpu(), None
        return torch.full((len(inputs),), float(self.noise), dtype=torch.float64), None

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        rows = self.method.per_sample(shape)
        return Cost(1 + self.n_samples * rows.forwards, self.n_samples * rows.backwards)

    def __repr__(self) -> str:
        return f"SmoothGrad({', '.join([repr(self.method), *self.settings_in_words()])})"

    def _check(self) -> None:
        check_count(self.n_samples, "n_samples")
        if getattr(self.method, "tolerance", None) is not None:
            raise ValueError("`model` is a method with a `tolerance`, which fits no noisy samples; give it `n_steps`")
        check_sigma(self.noise)
        check_seed(self.seed)
        if self.relative not in (True, False, "range"):
            raise ValueError(f'`relative` came as {self.relative!r}; give True, "range" or False')
        if self.aggregate not in ("mean", "square", "variance"):
            raise ValueError(f'`aggregate` came as {self.aggregate!r}; give "mean", "square" or "variance"')
        self._check_snapshots()

    def _check_snapshots(self) -> None:
        marks: Any = self.snapshots
        if isinstance(marks, str) or not isinstance(marks, Sequence):
            raise TypeError(f"`snapshots` came as {marks!r}; give a sequence of sample counts")
        for mark in marks:
            check_count(mark, "snapshots")
            if mark > self.n_samples:
                raise ValueError(f"`snapshots` holds {mark}, and `n_samples` is {self.n_samples}; give at most that")
        object.__setattr__(self, "snapshots", tuple(sorted(set(marks))))
