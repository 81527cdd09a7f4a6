"""The scale: robust limits, defined answers for maps without contrast, refusals."""

import numpy as np
import pytest

from xai_fast.report import Scale
from xai_fast.report.scale import as_map, short


def test_explicit_limits_are_straight_lines():
    np.testing.assert_allclose(Scale(2, 6).positions([0, 2, 3, 6, 9]), [0, 0, 0.25, 1, 1])
    np.testing.assert_allclose(Scale.symmetric(4).positions([-8, -4, 0, 2, 4]), [0, 0, 0.5, 0.75, 1])
    np.testing.assert_array_equal(Scale.symmetric(4).strengths([-4, 0, 2]), [1, 0, 0.5])


def test_the_percentile_rules_and_what_it_clips_is_said():
    values = np.arange(1.0, 1001)
    scale = Scale.of(values, signed=False, percentile=99)
    assert (scale.low, scale.high) == (0, pytest.approx(990.01))
    assert scale.clipped == pytest.approx(0.01)
    assert scale.note() == "1.0\N{NO-BREAK SPACE}% clipped"
    assert Scale.of(values, signed=False, percentile=100).note() == ""


def test_signed_scales_are_centred_on_zero_whatever_the_values():
    scale = Scale.of([-1.0, 3.0], signed=True, percentile=100)
    assert (scale.low, scale.high, scale.neutral) == (-3, 3, 0)
    assert scale.ticks() == ("\N{MINUS SIGN}3", "0", "3")


def test_unsigned_maps_far_from_zero_use_their_own_range():
    scale = Scale.of(np.linspace(0.4, 0.6, 101), signed=False, percentile=100)
    assert (scale.low, scale.high) == (0.4, 0.6)


def test_one_scale_for_maps_of_different_sizes():
    scale = Scale.of([np.full((2, 2), 1.0), np.full((3, 5), -4.0)], signed=True)
    assert scale.high == 4


@pytest.mark.parametrize("signed", [False, True])
def test_zero_maps_say_nothing(signed):
    scale = Scale.of(np.zeros((4, 4)), signed=signed)
    np.testing.assert_array_equal(scale.strengths(np.zeros((4, 4))), 0)
    assert scale.ticks() == ("0", "0", "0")
    assert scale.note() == "zero everywhere"


def test_rounding_noise_around_a_constant_is_not_blown_up():
    noisy = 0.5 + 1e-8 * np.random.default_rng(0).normal(size=(8, 8))
    np.testing.assert_array_equal(Scale.of(noisy, signed=False).positions(noisy), 0)
    np.testing.assert_allclose(Scale.of(-noisy, signed=True).positions(-noisy), 0, atol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
def test_a_few_strong_pixels_rule_over_noise(signed):
    values = np.full(1000, 1e-9)
    values[3] = 2.0
    scale = Scale.of(values, signed=signed)
    assert scale.high == 2
    assert scale.strengths(1e-9) < 1e-6


def test_huge_limits_do_not_overflow():
    np.testing.assert_array_equal(Scale.symmetric(1.7e308).positions([-1.7e308, 0, 1.7e308]), [0, 0.5, 1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_with_their_number(bad):
    values = np.ones((2, 3))
    values[0, 1] = bad
    with pytest.raises(ValueError, match="`maps` holds 1 values of 6 that are NaN or infinite"):
        Scale.of(values, signed=True)
    with pytest.raises(ValueError, match="`heatmap` holds 1 values of 6"):
        as_map(values)
    with pytest.raises(ValueError, match="`heatmap` holds 1 values of 1"):
        as_map([[1e300]])


def test_wrong_arguments_say_what_fits():
    with pytest.raises(ValueError, match=r"`heatmap` has shape \(3, 4, 4\); give one map"):
        as_map(np.zeros((3, 4, 4)))
    with pytest.raises(TypeError, match="`heatmap` holds complex128"):
        as_map(np.zeros((4, 4), complex))
    with pytest.raises(ValueError, match=r"`percentile` is 0; it must lie in \(50, 100\]"):
        Scale.of([1.0], signed=True, percentile=0)
    with pytest.raises(ValueError, match="`maps` holds no values"):
        Scale.of([], signed=True)
    with pytest.raises(ValueError, match=r"`low` is -1 and `high` 2; use Scale.symmetric\(2\)"):
        Scale(-1, 2, signed=True)
    with pytest.raises(ValueError, match="low <= high"):
        Scale(2, 1)


def test_numbers_are_short():
    assert [short(v) for v in (0.0, 0.123456, -2.5, 4.24e-5)] == [
        "0",
        "0.123",
        "\N{MINUS SIGN}2.5",
        "4.24e\N{MINUS SIGN}5",
    ]
