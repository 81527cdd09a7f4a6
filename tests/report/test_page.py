"""The page: complete, escaped, self-contained."""

import os
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from xai_fast.report import Failure, Item, Map, write_page
from xai_fast.report.page import href

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)> &amp; {{ 7*7 }} ünï"


class Parsed(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        self.text.append(data)

    def values(self, name):
        return [value for _, attribute, value in self.attributes if attribute == name]


def page(path, *args, **kwargs):
    return Parsed(write_page(path / "index.html", *args, **kwargs).read_text(encoding="utf-8"))


def test_it_shows_what_it_is_given(tmp_path):
    shown = Map("GradCAM", "cat.GradCAM.png", "tabby", 8.25, "layer4.2", 0.0123, 2048, "0 to 1", "cat.safetensors")
    parsed = page(
        tmp_path,
        "Why",
        [Item("cat.jpg", "cat.png", "tabby", 0.983, [shown])],
        failures=[Failure("dog.jpg", "truncated", "Occlusion")],
        facts={"model": "resnet50"},
    )
    text = " ".join(" ".join(parsed.text).split())
    for words in (
        "98.3 %",
        "8.25",
        "layer4.2",
        "12.3 ms",
        "2,048",
        "0 to 1",
        "truncated",
        "Occlusion",
        "resnet50",
    ):
        assert words in text
    assert {"cat.GradCAM.png", "cat.safetensors", "cat.png"} <= set(parsed.values("href"))
    assert parsed.values("alt") == ["Photo cat.jpg", "GradCAM map of cat.jpg for tabby"]


def test_hostile_texts_make_no_tags_and_no_attributes(tmp_path):
    def build(text):
        one = Map(text, text + ".png", text, 1.0, text, 1.0, 1, text, text + ".safetensors")
        return page(
            tmp_path,
            text,
            [Item(text, text + ".jpg", text, 0.5, [one])],
            failures=[Failure(text, text, text)],
            facts={text: text},
        )

    harmless, hostile = build("name"), build(HOSTILE)
    assert hostile.tags == harmless.tags
    assert [a[:2] for a in hostile.attributes] == [a[:2] for a in harmless.attributes]
    assert HOSTILE in "".join(hostile.text)
    assert unquote(hostile.values("src")[0]) == HOSTILE + ".jpg"


@pytest.mark.parametrize("name", ["a b.png", "a#b?c.png", "50%.png", "ü'\".png", "javascript:alert(1)", "a&b.png"])
def test_links_keep_only_characters_that_mean_themselves(tmp_path, name):
    assert re.fullmatch(r"[A-Za-z0-9_.~%/-]+", href(name, tmp_path))
    assert unquote(href(name, tmp_path)) == name
    assert href(tmp_path / name, tmp_path) == href(name, tmp_path)
    assert href(os.path.join(tmp_path, "x", name), tmp_path / "y").startswith("../x/")


def test_file_names_that_are_not_unicode_are_linked_and_shown(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    parsed = page(tmp_path, "Why", [Item(name, name)])
    assert "caf%E9.png" in parsed.values("src")


def test_it_needs_no_network_and_no_script(tmp_path):
    text = write_page(tmp_path / "index.html", "Why", []).read_text(encoding="utf-8")
    assert "http:" not in text
    assert "https:" not in text
    assert "<script" not in text
    assert "There are no images" in text


def test_a_page_that_fails_leaves_the_older_one(tmp_path):
    write_page(tmp_path / "index.html", "first", [])
    with pytest.raises(TypeError):
        write_page(tmp_path / "index.html", "second", [Item("a", photo=3)])
    assert "first" in (tmp_path / "index.html").read_text()
    assert os.listdir(tmp_path) == ["index.html"]
