"""`xai-fast methods`: the registry, two lines per method."""

from __future__ import annotations

from rich.table import Table

from xai_fast.methods.registry import MethodInfo, methods

from .console import out


def run() -> None:
    """Prints what each method shows, what it costs, what its values mean, and where it was published."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, info in methods().items():
        table.add_row(name, f"{info.summary}\n[dim]{_facts(info)}\n{info.paper}[/]")
    out.print(table, soft_wrap=False)


def _facts(info: MethodInfo) -> str:
    sign = "for and against" if info.signed else "never negative"
    each = "text" if info.kind == "text" else "image"
    return f"{info.kind}, {sign}, in units of {info.units}; {info.cost} per {each}"
