"""The colour maps: equal perceptual steps, monotone or symmetric lightness, inside the gamut."""

import numpy as np
import pytest

from xai_fast.report import colours


def oklab(rgb):
    """OKLab of sRGB by the published inverse: linear light, cone responses, cube root, opponents."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = (
        linear
        @ np.array(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        ).T
    )
    return np.cbrt(cones) @ np.linalg.inv(colours._CONES_FROM_LAB).T


@pytest.mark.parametrize("name", colours.NAMES)
def test_steps_are_perceptually_equal(name):
    table = colours.named(name)
    steps = np.linalg.norm(np.diff(oklab(table.table), axis=0), axis=1)
    if table.diverging:
        # The turn at zero falls between the two middle entries, so the way between them is a short cut.
        steps = np.delete(steps, 127)
    assert steps.max() / steps.min() < 1.02


@pytest.mark.parametrize("name", colours.NAMES)
def test_the_whole_curve_lies_in_the_gamut(name):
    rgb = colours.srgb_from_oklab(colours._MAKERS[name]())
    assert rgb.min() >= 0
    assert rgb.max() <= 1 + 1e-9


def test_sequential_lightness_rises_evenly_so_grey_copies_read():
    lightness = oklab(colours.named("ember").table)[:, 0]
    np.testing.assert_allclose(np.diff(lightness), (0.97 - 0.13) / 255, atol=1e-5)


@pytest.mark.parametrize("name", ["polar", "aurora"])
def test_diverging_maps_are_equally_light_on_both_sides_and_neutral_at_zero(name):
    table = colours.named(name)
    lab = oklab(table.table)
    np.testing.assert_allclose(lab[:, 0], lab[::-1, 0], atol=1e-5)
    assert table.diverging
    middle = table(0.5)
    assert np.ptp(middle) < 0.005


def test_polar_is_blue_below_and_red_above():
    low, high = colours.named("polar")([0.0, 1.0])
    assert low.argmax() == 2
    assert high.argmax() == 0


def test_ends_are_the_ends_of_the_table_and_hold_beyond():
    table = colours.named("ember")
    np.testing.assert_allclose(table([-1, 0, 1, 7]), table.table[[0, 0, -1, -1]], atol=1e-6)
    assert table(np.zeros((2, 5))).shape == (2, 5, 3)


def test_an_unknown_name_lists_what_exists():
    with pytest.raises(ValueError, match=r"`colours` is 'jet'.*'ember', 'polar', 'reds', 'aurora'"):
        colours.named("jet")
