"""A text coloured by what its words weigh: one static page that opens from disk and asks nothing of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from xai_fast.report.colours import default
from xai_fast.report.scale import short

_INK = 0.6  # how much of the colour map's full colour the largest weight gets, so that the letters stay readable
_REACH = 0.36  # of either half of the map, whose ends are dark


class Passage(NamedTuple):
    """A part of the text that carries a weight; positions are those of Python strings."""

    start: int
    end: int
    weight: float


def text_page(
    text: str,
    passages: Sequence[Passage],
    *,
    title: str,
    method: str,
    strongest: Sequence[tuple[str, float]] = (),
    facts: Mapping[str, str] | None = None,
) -> str:
    """HTML of the text with its passages coloured: positive in one hue, negative in the other, by |weight|.

    Args:
        text: as it is; escaped, its line breaks kept, in the direction of its script.
        passages: ascending, not overlapping.
        title: what was explained.
        method: what explained it.
        strongest: (word, weight) for the list below the text.
        facts: more to say, by name.
    """
    import jinja2

    environment = jinja2.Environment(loader=jinja2.PackageLoader("xai_fast", "report"), autoescape=True)
    limit = max((abs(passage.weight) for passage in passages), default=0.0)
    parts, at = [], 0
    for start, end, weight in passages:
        parts += [(text[at:start], None, ""), (text[start:end], _colour(weight, limit), short(weight))]
        at = end
    parts.append((text[at:], None, ""))
    bars = [(word, short(weight), 100 * abs(weight) / limit, _colour(weight, limit)) for word, weight in strongest]
    return environment.get_template("text.html").render(
        title=title, method=method, parts=parts, bars=bars, facts=facts or {}, low=_colour(-1, 1), high=_colour(1, 1)
    )


def _colour(weight: float, limit: float) -> str | None:
    """A colour for CSS, paler the smaller the weight; None for no weight at all."""
    if not weight:
        return None
    position = 0.5 + _REACH * weight / limit
    red, green, blue = default(True)(position).tolist()
    return "#" + "".join(f"{round(255 * (1 - _INK * (1 - value))):02x}" for value in (red, green, blue))
