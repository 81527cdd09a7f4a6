"""Overlays: exact where they can be, on every kind of photo, and clear about what they refuse."""

import numpy as np
import pytest
from PIL import Image

from xai_fast.report import Scale, as_photo, overlay
from xai_fast.report.colours import named
from xai_fast.report.overlay import draw, resize_map, smoothed


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def eight_bits(rgb):
    return (np.asarray(rgb) * 255).round().astype(np.uint8)


@pytest.mark.parametrize("signed", [False, True])
def test_opacity_shows_the_photo_exactly_where_the_value_is_zero(photo, signed):
    heatmap = np.zeros((24, 32))
    heatmap[:, 16:] = 1
    picture = np.asarray(overlay(photo, heatmap, signed=signed, style="opacity"))
    np.testing.assert_array_equal(picture[:, :16], photo[:, :16])
    assert (picture[:, 16:] != photo[:, 16:]).any(axis=-1).mean() > 0.9


def test_no_alpha_is_the_photo_and_full_alpha_the_map(photo):
    heatmap = np.random.default_rng(1).normal(size=(24, 32))
    np.testing.assert_array_equal(np.asarray(overlay(photo, heatmap, signed=True, alpha=0)), photo)
    full = np.asarray(overlay(photo, heatmap, signed=True, alpha=1)).astype(int)
    bare = np.asarray(overlay(photo, heatmap, signed=True, style="heatmap")).astype(int)
    assert abs(full - bare).max() <= 1


def test_bare_maps_have_the_colours_of_the_ends_and_the_middle(photo):
    heatmap = np.repeat([[-2.0, 0.0, 2.0]], 24, 0)
    picture = np.asarray(overlay(np.zeros((24, 3, 3)), heatmap, signed=True, style="heatmap"))
    np.testing.assert_array_equal(picture[0], eight_bits(named("polar")([0, 0.5, 1])))


def test_maps_on_one_scale_have_equal_colours_for_equal_values(photo):
    first, second = np.full((24, 32), 0.5), np.linspace(0, 1, 24 * 32).reshape(24, 32)
    second[3, 4] = 0.5
    scale = Scale(0, 1)
    one, two = (np.asarray(overlay(photo, m, signed=False, scale=scale, style="heatmap")) for m in (first, second))
    np.testing.assert_array_equal(one[3, 4], two[3, 4])


def test_a_faded_photo_is_pale_and_grey_and_only_the_map_has_colour(photo):
    heatmap = np.repeat([[-1.0, 0.0, 1.0]], 3, 0).repeat(8, 0).repeat(12, 1)
    picture = np.asarray(overlay(photo, heatmap[:, :32], signed=True, style="faded")).astype(int)
    negative, nothing, positive = picture[:, :11], picture[:, 13:23], picture[:, 25:]
    assert (np.ptp(nothing, axis=-1) <= 3).all()
    assert nothing.mean() > 0.7 * 255
    assert nothing.std() > 5  # the photo is still to be seen
    assert (negative[..., 2] > negative[..., 0] + 50).all()
    assert (positive[..., 0] > positive[..., 2] + 50).all()


@pytest.mark.parametrize("brightness", [0, 30, 128, 255])
def test_faded_paper_is_light_under_dark_photos_too(brightness):
    picture = np.asarray(
        overlay(np.full((8, 8, 3), brightness, np.uint8), np.zeros((8, 8)), signed=True, style="faded")
    )
    assert picture.mean() >= 0.74 * 255
    dark = overlay(
        np.full((8, 8, 3), brightness, np.uint8), np.zeros((8, 8)), signed=True, style="faded", colours="aurora"
    )
    assert np.asarray(dark).mean() <= 0.26 * 255


def test_maps_that_are_never_negative_are_printed_in_red(photo):
    heatmap = np.linspace(0, 1, 32)[None].repeat(24, 0)
    picture = np.asarray(overlay(np.full((24, 32, 3), 255, np.uint8), heatmap, signed=False, style="faded")).astype(int)
    red = picture[12, :, 0] - picture[12, :, 2]
    assert red[0] <= 3
    assert red[-1] > 80


def test_smoothing_makes_forms_of_single_pixels_and_is_not_done_unasked(photo):
    rows, columns = np.mgrid[:100, :100]
    checkerboard = np.where((rows + columns) % 2, -1.0, 1.0).astype(np.float32)
    assert abs(smoothed(checkerboard, 0.01)[4:-4, 4:-4]).max() < 0.05  # signs of neighbours cancel
    point = np.zeros((100, 100), np.float32)
    point[50, 50] = 1
    spread = smoothed(point, 0.01)
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    assert spread[50, 50] == pytest.approx(1 / (2 * np.pi), rel=0.05)  # a Gaussian with sigma 1
    assert smoothed(point, 0.0) is point
    as_it_is = draw(photo, point, signed=True, style="heatmap")
    assert as_it_is.scale.high == 1
    assert draw(photo, point, signed=True, style="heatmap", smoothing=0.01).scale.high < 0.2


def test_a_map_of_zeros_says_so_in_the_picture():
    photo, nothing = np.full((100, 200, 3), 128, np.uint8), np.zeros((7, 7))
    for style in ("alpha", "opacity", "faded", "heatmap"):
        said = np.asarray(overlay(photo, nothing, signed=True, style=style)).astype(int)
        assert said[-8].min() < 80 < 200 < said[-8].max()  # dark letters on a light strip
        assert np.ptp(said[:80]) < 10
    something = overlay(photo, np.pad([[1e-9]], ((0, 6), (0, 6))), signed=True, style="opacity")
    assert (np.asarray(something)[-20:] == 128).all()
    small = np.asarray(overlay(photo[:20, :20], nothing, signed=True, style="opacity"))
    assert (small == 128).all()  # no room for words


@pytest.mark.parametrize("size", [(8, 12), (31, 45), (224, 320)])
def test_enlarging_is_bilinear_with_half_pixel_centres(size):
    small = np.random.default_rng(2).normal(size=(7, 9)).astype(np.float32)

    def at(n_out, n_in):
        where = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
        below = np.minimum(where.astype(int), n_in - 2)
        weights = np.zeros((n_out, n_in))
        weights[np.arange(n_out), below] = 1 - (where - below)
        weights[np.arange(n_out), below + 1] = where - below
        return weights

    expected = at(size[0], 7) @ small @ at(size[1], 9).T
    np.testing.assert_allclose(resize_map(small, size), expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_every_kind_of_photo_works(mode):
    base = Image.fromarray(np.full((10, 14), 128, np.uint8))
    image = Image.new(mode, (14, 10), 32768) if mode == "I;16" else base.convert("RGB").convert(mode)
    picture = overlay(image, np.zeros((2, 2)), signed=True, style="opacity")
    assert (picture.mode, picture.size) == ("RGB", (14, 10))
    if mode not in ("1", "P", "CMYK"):
        assert abs(np.asarray(picture).astype(int) - 128).max() <= 3


@pytest.mark.parametrize("array", [np.full((4, 5), 0.2), np.full((4, 5, 1), 51, np.uint8)])
def test_grey_arrays_are_photos(array):
    np.testing.assert_array_equal(np.asarray(as_photo(array)), np.full((4, 5, 3), 51))


def test_transparency_is_white():
    assert as_photo(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"photo": np.zeros((3, 8, 9))}, ValueError, r"`photo` has shape \(3, 8, 9\); give a PIL image"),
        (
            {"photo": np.full((8, 9, 3), -1.5)},
            ValueError,
            r"`photo` has values from -1.5.*not the normalised",
        ),
        ({"photo": np.full((8, 9, 3), np.nan)}, ValueError, r"`photo` has values from nan"),
        ({"photo": np.zeros((8, 9, 3), np.int64)}, TypeError, "`photo` holds int64; give"),
        ({"photo": Image.new("F", (9, 8))}, TypeError, "`photo` has mode 'F'"),
        ({"heatmap": np.zeros((1, 8, 9))}, ValueError, r"`heatmap` has shape \(1, 8, 9\)"),
        ({"heatmap": np.full((8, 9), np.nan)}, ValueError, "`heatmap` holds 72 values of 72"),
        ({"style": "jet"}, ValueError, "`style` is 'jet'; use one of 'alpha', 'opacity', 'faded', 'heatmap'"),
        ({"alpha": 1.2}, ValueError, r"`alpha` is 1.2; .* \[0, 1\]"),
        ({"smoothing": -1}, ValueError, "`smoothing` is -1; .* shorter side"),
        ({"colours": "ember"}, ValueError, "`colours` 'ember' has no neutral middle"),
        ({"scale": 3}, TypeError, "`scale` is a int; give a Scale"),
        ({"scale": Scale(0, 1)}, ValueError, "`scale` has signed=False but the map signed=True"),
    ],
)
def test_wrong_arguments_say_what_fits(change, error, message):
    arguments = {"photo": np.zeros((8, 9, 3)), "heatmap": np.zeros((8, 9)), "signed": True} | change
    with pytest.raises(error, match=message):
        overlay(arguments.pop("photo"), arguments.pop("heatmap"), **arguments)
