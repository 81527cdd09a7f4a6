"""`xai-fast methods`: the registry, a paragraph per method."""

from __future__ import annotations

from xai_fast.methods.registry import MethodInfo, methods

from .console import line, paragraph


def run() -> None:
    """Prints what each method shows, what its values mean, what it costs, and where it was published."""
    for name, info in methods().items():
        line((name, "bold"))
        paragraph(info.summary, 4)
        paragraph(_facts(info), 4, "dim")
        paragraph(info.paper, 4, "dim")


def _facts(info: MethodInfo) -> str:
    sign = "for and against" if info.signed else "never negative"
    units = "" if info.units == "none" else f", in units of {info.units}"
    each = "text" if info.kind == "text" else "image"
    return f"{info.kind}, {sign}{units}; {info.cost} per {each}"
