"""Texts in pieces that can be taken out: words or characters of any script, emoji included."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Unit = Literal["word", "character"]
_JOINER, _APOSTROPHES = "\u200d", "'’"
_PICTURES = ("So", "Cn", "Co")  # symbols; emoji younger than Python's tables have no category of their own
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA")  # scripts that put no spaces between words


@dataclass(frozen=True)
class Pieces:
    """What a text consists of.

    Attributes:
        text: the whole.
        names: one per feature: a word, as it is written, or a character.
        spans: per feature, where it stands: one place per occurrence of a word, one of a character; (start, end) in
            the text.
    """

    text: str
    names: tuple[str, ...]
    spans: tuple[tuple[tuple[int, int], ...], ...]

    @classmethod
    def of(cls, text: str, unit: Unit) -> Pieces:
        """Words, each with all its occurrences, as lime counts them; or characters, each by itself.

        A word is a run of letters, digits and the marks on them, with apostrophes inside; emoji are words, and so are
        the characters of Chinese and Japanese, each by itself. A character is what is seen as one: marks, joiners and
        selectors belong to what they stand on. White space is no character.
        """
        places: dict[object, list[tuple[int, int]]] = {}
        for span in _clusters(text) if unit == "character" else _words(text):
            places.setdefault(span if unit == "character" else text[slice(*span)], []).append(span)
        names = tuple(text[slice(*spans[0])] for spans in places.values())
        return cls(text, names, tuple(map(tuple, places.values())))

    def __len__(self) -> int:
        return len(self.names)

    def showing(self, shown: Sequence[bool]) -> str:
        """The text without the features that are not shown."""
        hidden = sorted(span for spans, kept in zip(self.spans, shown, strict=True) if not kept for span in spans)
        parts, at = [], 0
        for start, end in hidden:
            parts.append(self.text[at:start])
            at = end
        return "".join([*parts, self.text[at:]])


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Characters as they are seen, white space aside."""
    start = 0
    for end in range(1, len(text) + 1):
        if end < len(text) and (_extends(text[end]) or text[end - 1] == _JOINER or _second_of_flag(text, start, end)):
            continue
        if not text[start].isspace():
            yield start, end
        start = end


def _extends(character: str) -> bool:
    """Whether it belongs to the character before it: marks, joiners, variation selectors, skin tones."""
    return (
        character == _JOINER or unicodedata.category(character)[0] == "M" or "\U0001f3fb" <= character <= "\U0001f3ff"
    )


def _second_of_flag(text: str, start: int, end: int) -> bool:
    """Whether two regional letters make a flag."""
    return end == start + 1 and all("\U0001f1e6" <= text[i] <= "\U0001f1ff" for i in (start, end))


def _words(text: str) -> Iterator[tuple[int, int]]:
    """Runs of letters and numbers, with single apostrophes inside; pictures and ideographs by themselves."""
    begun, last = None, 0  # where the word at hand starts, and where it ends so far
    for start, end in [*_clusters(text), (len(text), len(text))]:
        kind = _kind(text, start)
        joins = begun is not None and last == start
        if joins and (kind == "letter" or (kind == "apostrophe" and _kind(text, end) == "letter")):
            last = end
            continue
        if begun is not None:
            yield begun, last
        begun, last = (start, end) if kind == "letter" else (None, end)
        if kind == "alone":
            yield start, end


def _kind(text: str, at: int) -> str:
    """What the character at a position is to words: "letter", "apostrophe", "alone", or nothing."""
    if at >= len(text):
        return ""
    category = unicodedata.category(text[at])
    if category in _PICTURES or unicodedata.name(text[at], "").startswith(_UNSPACED):
        return "alone"
    if category[0] in "LN" or text[at] == "_":
        return "letter"
    return "apostrophe" if text[at] in _APOSTROPHES else ""
