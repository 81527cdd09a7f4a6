"""What names look like on terminals and pages, whatever they hold and however they came."""

from __future__ import annotations

import pytest

from xai_fast._printing import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Käfer", "Käfer"),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        ("Käfer".encode().decode("ascii", "surrogateescape"), "Käfer"),  # as file systems give it under LC_ALL=C
        ("a\udcffb", "a\\udcffb"),  # a byte that is no UTF-8
        ("ä\udcffb", "ä\\udcffb"),
        ("\ud800\udcc3\udca4", "\\ud800\\udcc3\\udca4"),
        ("\udce2\udc80\udcae", "\\u202e"),  # decoded to a mark that turns the direction, and escaped
    ],
)
def test_names_are_shown_as_they_are_meant_and_cannot_act(text, shown):
    assert printable(text) == shown
    printable(text).encode()
