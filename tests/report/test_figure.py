"""Figures: everything in its place, whatever the shapes and the words."""

import numpy as np
import pytest
from PIL import Image

from xai_fast.report import Bar, Panel, Row, Scale, figure
from xai_fast.report.lettering import fit, font_and_text

RED = (200, 30, 40)


def tile(width=60, height=40):
    return Image.new("RGB", (width, height), RED)


def red_boxes(picture):
    """How many separate red columns and rows of pixels the picture holds."""
    red = (np.asarray(picture) == RED).all(-1)
    return tuple(int((np.diff(red.any(axis).astype(int)) == 1).sum()) for axis in (0, 1))


def test_rows_and_columns_line_up_on_white():
    panel = Panel(tile(), "GradCAM", "281 tabby", Bar(Scale(0, 1), "score"))
    picture = figure([Row([panel, panel, panel]), Row([panel, None, panel])], width=200)
    assert red_boxes(picture) == (3, 2)
    assert picture.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("panels", "width", "lines"), [(3, 420, 1), (6, 420, 1), (11, 220, 1), (12, 420, 2), (24, 420, 3)]
)
def test_no_figure_is_wider_than_it_may_be(panels, width, lines):
    photo = Image.new("RGB", (60, 60), (10, 20, 200))
    row = Row([Panel(photo), *[Panel(tile(60, 60))] * (panels - 1)])
    picture = figure([row, row], width=width)
    assert picture.width <= 2400
    columns, rows = red_boxes(picture)
    assert rows == 2 * lines
    assert columns == -(-(panels - 1) // lines)
    blue = (np.asarray(picture) == (10, 20, 200)).all(-1)
    assert (
        int((np.diff(blue.any(1).astype(int)) == 1).sum()) == 2
    )  # once per row: its continuation leaves the place empty
    assert 200 <= blue.any(0).sum() <= width
    assert figure([row], widest=600).width <= 600


def test_portraits_are_bounded_and_landscapes_fill_their_panel():
    narrow = figure([Row([Panel(tile(10, 1000))])], width=200)
    wide = figure([Row([Panel(tile(1000, 10))])], width=200)
    assert narrow.height < 2 * 200
    assert (np.asarray(wide) == RED).all(-1).any(0).sum() == 200


def test_the_bar_shows_both_ends_of_its_colours():
    picture = np.asarray(figure([Row([Panel(tile(), bar=Bar(Scale.symmetric(2)))])], width=300))
    ends = (np.array([[44, 63, 158], [141, 20, 36]])[:, None, None] - picture.astype(int)[None]).__abs__()
    assert (ends.sum(-1) < 30).any((1, 2)).all()


@pytest.mark.parametrize("text", ["x" * 5_000_000, "a\nb\x00c\u202e", "中文 \ud800 😀", "", "−1.5 × 2"])
def test_any_text_can_be_drawn_and_fits(text):
    font, drawn = fit(text, 20, 150, 16)
    assert font.getlength(drawn) <= 150
    assert drawn.isprintable()
    figure([Row([Panel(tile(), text, text, Bar(Scale(0, 1), text))])], width=150)


def test_plain_text_keeps_the_bundled_font_and_a_minus_sign_does_not_change_it():
    assert font_and_text("\N{MINUS SIGN}1.5", 20)[1] == "-1.5"
    assert font_and_text("\N{MINUS SIGN}1.5", 20)[0].getname() == font_and_text("abc", 20)[0].getname()


def test_long_titles_shrink_before_they_are_cut():
    font, drawn = fit("a title a little too long", 20, 175, 16)
    assert drawn == "a title a little too long"
    assert 16 <= font.size < 20
    assert fit("word " * 50, 20, 200, 16)[1].endswith("...")


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="`rows` holds no panel"):
        figure([Row([None])])
    with pytest.raises(TypeError, match="`rows` holds a list; give Row"):
        figure([[Panel(tile())]])
    with pytest.raises(ValueError, match="`width` is 10"):
        figure([Row([Panel(tile())])], width=10)
    with pytest.raises(ValueError, match="`widest` is 100"):
        figure([Row([Panel(tile())])], widest=100)
