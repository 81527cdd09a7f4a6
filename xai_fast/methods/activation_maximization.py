"""Activation maximisation: what does a filter of some layer want to see?"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from xai_fast.core.copies import traits
from xai_fast.core.layers import Grid, Layer, Reading, checked_grid
from xai_fast.engine import Cost, Engine, Recipe
from xai_fast.engine.ascent import Ascent
from xai_fast.engine.evaluate.prefix import ChannelMaps, ChannelSum
from xai_fast.engine.finite import NonFiniteError
from xai_fast.engine.inputs import checked, refuse_single_image
from xai_fast.engine.reducers.clean import CleanFormula
from xai_fast.engine.run import Outcome
from xai_fast.images.preprocess import Preprocess
from xai_fast.results.filter_images import FilterImages

from .distortions import Distortions
from .filters import Filters, checked_filters, checked_layer, filters_of, no_score
from .parametrizations import Pixels, Spectrum, noise_pictures

Size = int | Sequence[int]
_SIDE = 224
_MOST_SCALE = 0.5
_NOISES = 8  # pictures of noise of which each filter takes the first that wakes it
_PARAMETRIZATIONS = {"pixels": Pixels, "fourier": Spectrum}


@final
@dataclass(frozen=True, eq=False, repr=False)
class ActivationMaximization:
    r"""Pictures that drive single filters as strongly as gradient ascent can (Erhan et al. 2009, TR 1341, Montréal).

    .. math:: x_k = \arg\max_x \sum_s A_{k,s}(x)

    The sum runs over the positions of the layer; Adam climbs it in `n_steps` steps. All pictures, one per filter and
    image, are climbed in one batch in which rows do not meet: each is what it would be alone.

    Differs from the paper, which keeps the norm of the picture fixed and follows the plain gradient: here pixels are
    kept between black and white where the model's preprocessing is known (an `xf.Preprocess`), and free otherwise.

    With the defaults many pictures of deep layers look like noise to people. Smoother, recognisable ones come from
    `parametrization="fourier", lr=0.05, jitter=8, scale=0.1, blur=1.0`, at lower activations.

    Args:
        model: a module or an `Engine`; a plain callable has no layers.
        layer: "auto", a name or a module, as for `FilterActivation`. Behind a ReLU a filter that is silent on the
            start has no gradient and its picture stays as it is, which is a warning; the layer before the ReLU has one.
        grid: how the layer's output lies over the input, where that is not clear: (h, w), or a function from it to
            (N, C, h, w). A layer without positions, (N, C), is one cell.
        filters: the filters' numbers: one, several, or None for all of the layer.
        start: "noise" (one picture per filter) or "image" (one per image and filter). Noise is the same for all
            filters, white for pixels and faint and coloured for "fourier"; a filter that is silent on it begins at the
            first of seven pictures of stronger coloured noise on which it is not.
        n_steps: steps of Adam.
        lr: its step size: in the model's units for pixels, in standard deviations of a photograph's spectrum for
            "fourier".
        parametrization: what is optimised. "pixels": the input itself. "fourier": its spectrum over 1 / frequency, in
            colours that are not correlated in photographs, squashed to [0, 1] by a logistic function where the
            preprocessing is known (Olah et al. 2017, doi:10.23915/distill.00007): smoother pictures. From an image it
            begins at that image, but for values within 1 % of black and white.
        jitter: in every step the model is shown the picture rolled by up to this many pixels along each axis.
        blur: after step t of n the picture is blurred by a Gaussian of standard deviation blur · (1 − t / n) pixels, so
            that fine detail comes last. 0: not at all.
        scale: in every step the picture shown is enlarged around its centre by a factor within 1 ± scale, which is at
            most 0.5; its size stays. The first step and the final score see the picture as it is.
        seed: of the noise, and of the movements. The same numbers come whatever the batch and the device.

    Cost: per image and filter n_steps + 1 rows forward and n_steps backward, and 8 rows forward to choose the noise;
    all of them end at the layer. Memory: about seven times the pictures.

    Raises:
        TypeError, ValueError: an argument does not fit; before anything runs, and for a filter that the layer does not
            have, after one row of noise.
    """

    model: Any
    _: dataclasses.KW_ONLY
    layer: Layer = "auto"
    grid: Grid = None
    filters: Filters
    start: Literal["noise", "image"] = "noise"
    n_steps: int = 100
    lr: float = 0.1
    parametrization: Literal["pixels", "fourier"] = "pixels"
    jitter: int = 0
    blur: float = 0.0
    scale: float = 0.0
    seed: int = 0
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "engine", Engine.of(self.model))
        object.__setattr__(self, "model", self.engine.model)
        object.__setattr__(self, "layer", checked_layer(self.engine, self.layer))
        object.__setattr__(self, "grid", checked_grid(self.grid))
        object.__setattr__(self, "filters", checked_filters(self.filters))
        self._check()

    def __call__(self, images: Tensor | None = None, *, size: Size | None = None) -> FilterImages:
        """Optimises a picture per filter, and per image with `start="image"`.

        Args:
            images: (N, C, *S) to start from, in the model's space; only with `start="image"`.
            size: of the pictures from noise: a side, (H, W), or with the channels (C, *S). None: the crop of the
                model's preprocessing, or 224 where that is not known.

        Returns:
            Pictures (N, F, C, *S), N being 1 from noise.

        Raises:
            TypeError, ValueError: images without `start="image"` or the other way round, or a size that is none.
            FloatingPointError: the layer, or its gradient, is NaN or Inf; names the filter and the step.
        """
        assert isinstance(self.model, nn.Module)  # or `layer` would have been refused
        given = self._given(images, size)
        dtype = torch.promote_types(given.dtype, traits(self.model)[0] or torch.float32)
        examples = self.engine.adopt(given).to(torch.promote_types(dtype, torch.float32))
        layer, reading, numbers = filters_of(self.engine, self.layer, self.grid, self.filters, examples)
        parametrization = _PARAMETRIZATIONS[self.parametrization](examples.shape[1:], self.engine.preprocess)
        began = time.perf_counter()
        if images is None:
            examples = noise_pictures(parametrization, examples, self.engine.preprocess)
            rows = examples[self._waking(examples, layer, reading, numbers)]
        else:
            rows = examples.repeat_interleave(len(numbers), 0)
        shape = (1 if images is None else len(images), len(numbers))
        ascent, outcome = self._climbed(parametrization, rows, layer, reading, numbers)
        history = ascent.history.unflatten(1, shape)
        self._warn_of_silence(history, layer, numbers)
        return FilterImages(
            images=outcome.values.unflatten(0, shape).to(given),
            history=history,
            layer=layer,
            filters=tuple(numbers),
            method=repr(self),
            evaluations=outcome.evaluations.view(shape).sum(1) + (_NOISES if images is None else 0),
            starts=None if images is None else images.detach().clone(),
            seconds=time.perf_counter() - began,
            preprocess=self.engine.preprocess,
        )

    def cost(self, shape: Sequence[int]) -> Cost:
        """Model rows that all filters together ask for.

        Args:
            shape: of one picture (C, *S), or of a batch of images (N, C, H, W).
        """
        count, shape = (shape[0], tuple(shape[1:])) if len(shape) == 4 else (1, tuple(shape))
        example = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
        rows = count * len(filters_of(self.engine, self.layer, self.grid, self.filters, example)[2])
        first = _NOISES if self.start == "noise" else 0
        return Cost(forwards=rows * (self.n_steps + 1) + first, backwards=rows * self.n_steps)

    def __repr__(self) -> str:
        settings = [f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.kw_only and f.init]
        return f"{type(self).__name__}({', '.join(['engine', *settings])})"

    def _climbed(
        self, parametrization: Pixels | Spectrum, rows: Tensor, layer: str, reading: Reading, numbers: list[int]
    ) -> tuple[Ascent, Outcome]:
        """The ascent from pictures (images · filters, C, *S), all filters of an image one after the other."""
        channels = torch.tensor(numbers).repeat(len(rows) // len(numbers))
        ascent = Ascent(
            parametrization,
            parametrization.parameters(rows),
            lambda gradient: ChannelSum(layer, channels, reading, backwards=int(gradient)),
            n_steps=self.n_steps,
            lr=self.lr,
            distort=Distortions(self.n_steps, rows.ndim - 2, self.jitter, self.scale, self.seed),
            sigma=lambda step: self.blur * (1 - step / self.n_steps),
        )
        recipe = Recipe(reduce=ascent, clean=ascent.question(True), then=ascent.then)
        try:
            return ascent, self.engine.run(lambda _inputs: recipe, ascent.picture, no_score)[0]
        except NonFiniteError as error:
            raise FloatingPointError(self._broken(error.samples[0], ascent.step, layer, numbers)) from None

    def _waking(self, noises: Tensor, layer: str, reading: Reading, numbers: list[int]) -> Tensor:
        """For every filter the first of the pictures on which it is not zero everywhere: LongTensor (F,)."""
        fires = CleanFormula(lambda _sample, answers: answers.responses[0].activation.flatten(2).ne(0).any(2)[:, None])
        recipe = Recipe(reduce=fires, clean=ChannelMaps(layer, torch.tensor(numbers), reading))
        try:
            outcome, _ = self.engine.run(lambda _inputs: recipe, noises, no_score)
        except NonFiniteError:  # the ascent will meet it again, and can say which filter it is
            return torch.zeros(len(numbers), dtype=torch.long)
        return outcome.values.argmax(0)  # of equal ones the first

    def _given(self, images: Tensor | None, size: Size | None) -> Tensor:
        """The images to start from, or standard normal numbers (8, C, *S) to make noise of."""
        if self.start == "noise":
            if images is not None:
                raise ValueError(
                    '`images` came, but start="noise"; give start="image" to begin at them, or only their `size`'
                )
            return torch.randn(_NOISES, *self._shape(size), generator=torch.Generator().manual_seed(self.seed))
        if images is None:
            raise ValueError('`images` are missing: start="image" begins at them; give (N, C, H, W), or start="noise"')
        if size is not None:
            raise ValueError(f'`size` came as {size!r}, but with start="image" the images have one; leave it out')
        images = checked(images)
        refuse_single_image(images, self.engine.model)
        return images

    def _shape(self, size: Size | None) -> tuple[int, ...]:
        """(C, *S) of a picture from noise."""
        preprocess = self.engine.preprocess
        known = preprocess if isinstance(preprocess, Preprocess) else None
        if size is None:
            size = known.crop if known is not None and known.crop is not None else _SIDE
        sides: tuple[Any, ...] = tuple(size) if isinstance(size, Sequence) else (size, size)
        if len(sides) < 2 or not all(isinstance(side, int) and side is not True and side >= 1 for side in sides):
            raise ValueError(f"`size` came as {size!r}; give a side in pixels, (H, W), or (C, H, W)")
        if len(sides) > 2:
            return sides
        return (len(known.mean) if known is not None else _channels(self.engine.model), *sides)

    def _warn_of_silence(self, history: Tensor, layer: str, numbers: list[int]) -> None:
        silent = (history == 0).all(0).any(0).nonzero()[:, 0].tolist()
        if silent:
            named = ", ".join(str(numbers[k]) for k in silent[:8]) + (", ..." if len(silent) > 8 else "")
            warnings.warn(
                f"`filters` {named} of layer {layer!r} stayed at zero in every step, so their pictures show nothing; "
                "look at the layer before the ReLU, or use another `start` or `seed`",
                stacklevel=3,
            )

    def _broken(self, row: int, step: int, layer: str, numbers: list[int]) -> str:
        image = f" of image {row // len(numbers)}" if self.start == "image" else ""
        return (
            f"filter {numbers[row % len(numbers)]} of layer {layer!r} or its gradient is NaN or Inf after {step} of "
            f"{self.n_steps} steps on the picture{image}; lower `lr`, or look at the layer's outputs there"
        )

    def _check(self) -> None:
        for name, fits in (("start", ("noise", "image")), ("parametrization", ("pixels", "fourier"))):
            if getattr(self, name) not in fits:
                raise ValueError(f"`{name}` came as {getattr(self, name)!r}; give {fits[0]!r} or {fits[1]!r}")
        for name, least in (("n_steps", 1), ("jitter", 0), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"`{name}` came as {value!r}; give an integer, at least {least}")
        for name, most in (("lr", float("inf")), ("blur", float("inf")), ("scale", _MOST_SCALE)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
                above = "" if most == float("inf") else f" and at most {most}"
                raise ValueError(f"`{name}` came as {value!r}; give a number, at least 0{above}")


def _channels(model: Any) -> int:
    """Of the model's first convolution; 3 where it has none."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)), None)
    return 3 if first is None else first.in_channels
