"""Colour maps: tables of 256 colours walked in equal perceptual steps through OKLab.

OKLab (Björn Ottosson, "A perceptual color space for image processing", 2020,
https://bottosson.github.io/posts/oklab/) is a colour space in which the Euclidean distance is close to the
difference that people see. In each map lightness changes linearly while hue and chroma follow a Bézier curve
in the (a, b) plane at constant speed, so neighbouring entries differ by the same amount everywhere: a map
invents no edges of its own.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# OKLab to the cube roots of the cone responses, and the cone responses to linear sRGB (Ottosson 2020).
_CONES_FROM_LAB = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_RGB_FROM_CONES = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)

Polar = tuple[float, float]


@dataclass(frozen=True, eq=False)
class ColourMap:
    """A named table of colours.

    Attributes:
        name: what `named` finds it by.
        diverging: whether the middle of the table is neutral and stands for zero.
        table: (256, 3) sRGB values in [0, 1], read-only.
    """

    name: str
    diverging: bool
    table: NDArray[np.float64]

    def __call__(self, positions: ArrayLike) -> NDArray[np.float32]:
        """Colours at positions along the table, linear between entries.

        Args:
            positions: any shape, values in [0, 1] (the end colours hold beyond); 0.5 is the neutral colour
                of a diverging map, between entries 127 and 128.

        Returns:
            sRGB values in [0, 1], the shape of `positions` with an axis of 3 behind it.
        """
        fine = self._fine
        places = np.clip(np.asarray(positions, dtype=np.float32), 0, 1) * (len(fine) - 1)
        return fine.take(places.round().astype(np.intp), axis=0)

    @functools.cached_property
    def _fine(self) -> NDArray[np.float32]:
        """The table with 15 colours between neighbours: finer than 8 bits can tell, fast to look up."""
        entries = np.arange(len(self.table))
        places = np.linspace(0, entries[-1], 16 * entries[-1] + 1)
        return np.stack([np.interp(places, entries, channel) for channel in self.table.T], -1).astype(np.float32)


def named(name: str) -> ColourMap:
    """The colour map called `name`: one of `NAMES`.

    Raises:
        ValueError: there is no such map; the message lists those that exist.
    """
    if name not in _MAKERS:
        raise ValueError(f"`colours` is {name!r}, which is no colour map; there are {', '.join(map(repr, NAMES))}")
    return _make(name)


def default(signed: bool) -> ColourMap:
    """The map that pictures use unless told otherwise: diverging for signed values, else sequential."""
    return named("polar" if signed else "ember")


def srgb_from_oklab(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gamma-encoded sRGB of OKLab colours, the colour axis last; outside [0, 1] means out of gamut."""
    linear = (lab @ _CONES_FROM_LAB.T) ** 3 @ _RGB_FROM_CONES.T
    # The IEC 61966-2-1 transfer curve; the maximum keeps negative numbers from the power.
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def _sequential(lightness: tuple[float, float], *control: Polar) -> NDArray[np.float64]:
    return _arm(np.linspace(*lightness, 256), control)


def _diverging(lightness: tuple[float, float], *control: Polar, mirror: float) -> NDArray[np.float64]:
    """Both arms leave neutral grey; the negative one has the hue `mirror` - h where the positive one has h.

    A reflection keeps lengths, so the two sides are equally light and equally fast: +v and -v look alike.
    """
    # Entries -255, -253, ... 253, 255 of 255: zero is halfway between the two middle entries.
    strength = np.arange(1, 256, 2) / 255
    heights = lightness[0] + (lightness[1] - lightness[0]) * strength
    positive = _arm(heights, ((0.0, 0.0), *control), strength)
    negative = _arm(heights, ((0.0, 0.0), *((chroma, mirror - hue) for chroma, hue in control)), strength)
    return np.concatenate([negative[::-1], positive])


def _arm(
    lightness: NDArray[np.float64], control: tuple[Polar, ...], at: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """OKLab colours along a cubic Bézier curve of (chroma, hue) points, at fractions `at` of its length."""
    corners = np.array([(c * np.cos(np.radians(h)), c * np.sin(np.radians(h))) for c, h in control])
    t = np.linspace(0, 1, 4001)[:, None]
    weights = np.concatenate([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)
    curve = weights @ corners
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    walked = length[-1] * (np.linspace(0, 1, len(lightness)) if at is None else at)
    return np.stack([lightness, *(np.interp(walked, length, axis) for axis in curve.T)], -1)


# Control points (chroma, hue) were searched for the highest chroma that stays inside the sRGB gamut.
_MAKERS = {
    # night violet, wine, orange, candle light
    "ember": functools.partial(_sequential, (0.13, 0.97), (0.04, 280), (0.235, 319), (0.374, 41), (0.085, 105.5)),
    # blue, paper white, red
    "polar": functools.partial(_diverging, (0.97, 0.42), (0.179, 54), (0.29, 25), (0.155, 21), mirror=289),
    # the red half of polar, for values that are never negative
    "reds": functools.partial(_sequential, (0.97, 0.42), (0.0, 0.0), (0.179, 54), (0.29, 25), (0.155, 21)),
    # polar on black, for dark pages: sky blue, black, amber
    "aurora": functools.partial(_diverging, (0.16, 0.76), (0.179, 19.4), (0.285, 20.4), (0.14, 53), mirror=288),
}
NAMES = tuple(_MAKERS)


@functools.cache
def _make(name: str) -> ColourMap:
    maker = _MAKERS[name]
    table = np.clip(srgb_from_oklab(maker()), 0, 1)
    table.flags.writeable = False
    return ColourMap(name, maker.func is _diverging, table)
