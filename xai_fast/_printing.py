"""Text that others chose (names of files, of classes, messages) in a form that cannot act on a terminal or a page."""

from __future__ import annotations

import unicodedata

# Joiners make letters and emoji of many scripts; they move nothing.
_HARMLESS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
_ACTING = ("Cc", "Cf", "Cs", "Zl", "Zp")


def printable(text: str) -> str:
    r"""The text in one line, with whatever would act on a terminal written as an escape: `\x1b[31m`, `\n`, `\u202e`.

    Escaped are control characters, marks that change the direction of what follows, separators of lines, and the lone
    surrogates by which names that are not Unicode come. Where the locale knows ASCII alone, names that are UTF-8 come
    as surrogates too, and are shown as what they mean.
    """
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _ACTING and c not in _HARMLESS else c
        for c in _decoded(text)
    )


def _decoded(text: str) -> str:
    if text.isascii():
        return text
    try:
        return text.encode(errors="surrogateescape").decode(errors="surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text


def text_of(error: BaseException | str) -> str:
    """What an error says; nothing where it cannot even say that."""
    try:
        return str(error)
    except Exception:  # its class is anybody's, and so is what makes its text
        return ""


def reason(error: BaseException | str) -> str:
    """What an error says, in one printable line; its type where it says nothing."""
    said = " ".join(text_of(error).split())
    return printable(said or type(error).__name__)
