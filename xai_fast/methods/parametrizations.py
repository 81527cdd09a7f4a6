"""What activation maximisation optimises: the pixels themselves, or the picture's spectrum in decorrelated colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from xai_fast.images.blur import blurred
from xai_fast.images.preprocess import Preprocess

# Of the natural photographs that scikit-image ships with in colour (astronaut, chelsea, coffee, rocket, the left one of
# stereo_motorcycle), the covariance of RGB in [0, 1], each divided by its trace, was averaged. Along these three
# orthonormal axes (grey, red against blue, green against magenta) its variances are as below; its own principal axes
# lie within 6 degrees. The axes stay what they are where channels come in the order blue, green, red.
_AXES = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 2.0, -1.0))
_VARIANCES = (0.882, 0.106, 0.012)
# Standard deviations: of white noise in the model's space; of coloured noise before it is squashed to [0, 1], faint
# where a picture is to grow on it, and strong where it is to wake a filter.
_WHITE, _FAINT, _STRONG = 1.0, 0.25, 1.0
_SATURATED = 0.01  # a photo's black and white are taken for this far inside [0, 1], where squashing can be undone


class Pixels:
    """The picture is the parameters, in the model's space; kept within black and white where these are known.

    Args:
        shape: (C, *S) of a picture.
        preprocess: tells black and white, if it is an `xf.Preprocess`.
    """

    def __init__(self, shape: Sequence[int], preprocess: Any) -> None:
        self._bounds: tuple[Tensor, Tensor] | None = None
        if _knows_colours(preprocess, shape):
            black, white = (preprocess.value_of(level).view(-1, *[1] * (len(shape) - 1)) for level in (0.0, 1.0))
            self._bounds = black, white

    def noise(self, draws: Tensor) -> Tensor:
        """Parameters (rows, C, *S) whose pictures are white noise, from standard normal `draws` of that shape."""
        return self.settle(draws * _WHITE, 0.0)

    def parameters(self, images: Tensor) -> Tensor:
        """Parameters whose pictures are `images` (rows, C, *S)."""
        return self.settle(images, 0.0)

    def picture(self, parameters: Tensor) -> Tensor:
        """The pictures (rows, C, *S)."""
        return parameters * 1  # a picture must not be the leaf that autograd knows

    def settle(self, parameters: Tensor, sigma: float) -> Tensor:
        """Blurred by a Gaussian of `sigma` pixels, the border repeated; then cut to what a picture can show."""
        parameters = blurred(parameters, sigma) if sigma > 0 else parameters
        if self._bounds is None:
            return parameters
        black, white = (bound.to(parameters) for bound in self._bounds)
        return parameters.clamp(black, white)


class Spectrum:
    """The parameters are real and imaginary parts of the picture's spectrum, per axis of colour.

    Amplitudes are multiplied by 1 / frequency, as they are in photographs, and colours lie along axes that are not
    correlated there, so that one step size suits all of them (Olah, Mordvintsev and Schubert 2017, Distill,
    doi:10.23915/distill.00007). Where black and white are known a logistic function keeps the picture between them.

    Args:
        shape: (C, *S) of a picture.
        preprocess: tells black and white, if it is an `xf.Preprocess`.
    """

    def __init__(self, shape: Sequence[int], preprocess: Any) -> None:
        self._size = tuple(shape[1:])
        self._preprocess = preprocess if _knows_colours(preprocess, shape) else None
        self._frequency = _frequencies(self._size)
        amplitude = 1 / self._frequency.clamp_min(1 / max(self._size))
        # Parameters of variance 1 give pictures of variance 1. A stored coefficient stands for itself and its conjugate
        # (twice its height, so four times its share); of the first and an even last one only the real part is taken.
        shares = torch.full(self._frequency.shape[-1:], 4.0, dtype=torch.float64)
        if self._size[-1] % 2 == 0:
            shares[-1] = 1
        shares[0] = 1
        variance = (amplitude.square() * shares).sum() / math.prod(self._size)
        self._amplitude = amplitude / variance.sqrt()
        self._colours = _colours() if shape[0] == 3 else torch.eye(shape[0], dtype=torch.float64)

    def noise(self, draws: Tensor, contrast: float = _FAINT) -> Tensor:
        """Parameters (rows, C, *s, 2) whose pictures are coloured noise, from standard normal `draws` (rows, C, *S)."""
        spectrum = torch.fft.rfftn(draws, dim=self._axes(draws), norm="ortho")
        return torch.view_as_real(spectrum) * (contrast * math.sqrt(2))

    def parameters(self, images: Tensor) -> Tensor:
        """Parameters whose pictures are `images` (rows, C, *S), but for values next to black and white."""
        if self._preprocess is not None:
            share = self._preprocess.pixels(images).clamp(_SATURATED, 1 - _SATURATED)
            images = share.logit()
        back = torch.linalg.inv(self._colours).to(images)
        spectrum = torch.fft.rfftn(_mixed(back, images), dim=self._axes(images), norm="ortho")
        return torch.view_as_real(spectrum / self._amplitude.to(images))

    def picture(self, parameters: Tensor) -> Tensor:
        """The pictures (rows, C, *S)."""
        spectrum = torch.view_as_complex(parameters) * self._amplitude.to(parameters)
        grey_and_colours = torch.fft.irfftn(spectrum, s=self._size, dim=self._axes(spectrum), norm="ortho")
        mixed = _mixed(self._colours.to(parameters), grey_and_colours)
        if self._preprocess is None:
            return mixed
        mean, std = (
            parameters.new_tensor(statistic).view(-1, *[1] * len(self._size))
            for statistic in (self._preprocess.mean, self._preprocess.std)
        )
        return (mixed.sigmoid() - mean) / std

    def settle(self, parameters: Tensor, sigma: float) -> Tensor:
        """Blurred by a Gaussian of `sigma` pixels, before the logistic function; the picture's ends meet."""
        if sigma == 0:
            return parameters
        passed = torch.exp(-2 * (math.pi * sigma * self._frequency) ** 2)
        return parameters * passed.to(parameters)[..., None]

    def _axes(self, picture: Tensor) -> tuple[int, ...]:
        return tuple(range(2, picture.ndim))


def noise_pictures(parametrization: Pixels | Spectrum, draws: Tensor, preprocess: Any) -> Tensor:
    """Pictures (rows, C, *S) to begin with: the first is the parametrisation's own noise, the others are louder.

    Behind a ReLU many filters are silent on the first, and a silent filter has no gradient. Strong coloured noise, with
    its large patches of colour, wakes nearly all of them.

    Args:
        parametrization: of the pictures.
        draws: (rows, C, *S), standard normal.
        preprocess: as the parametrisation was given it.
    """
    first = parametrization.picture(parametrization.noise(draws[:1]))
    coloured = Spectrum(draws.shape[1:], preprocess)
    return torch.cat([first, coloured.picture(coloured.noise(draws[1:], _STRONG))])


def _knows_colours(preprocess: Any, shape: Sequence[int]) -> bool:
    return isinstance(preprocess, Preprocess) and len(shape) == 3 and len(preprocess.mean) == shape[0]


def _frequencies(size: Sequence[int]) -> Tensor:
    """Cycles per element of each stored coefficient of a real spectrum, float64."""
    lines = [torch.fft.fftfreq(n, dtype=torch.float64) for n in size[:-1]]
    lines.append(torch.fft.rfftfreq(size[-1], dtype=torch.float64))
    return torch.stack(torch.meshgrid(*lines, indexing="ij")).square().sum(0).sqrt()


def _colours() -> Tensor:
    """From uncorrelated axes to red, green and blue, whose mean variance is 1."""
    axes = F.normalize(torch.tensor(_AXES, dtype=torch.float64), dim=1)
    return axes.T * (3 * torch.tensor(_VARIANCES, dtype=torch.float64)).sqrt()


def _mixed(matrix: Tensor, channels: Tensor) -> Tensor:
    return torch.einsum("dc,nc...->nd...", matrix, channels)
