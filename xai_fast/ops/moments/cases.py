"""What moments is tested and timed on: gradients summed per input, and odd shapes and layouts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from xai_fast.ops._cases import Case
from xai_fast.ops._checks import FLOATING


def _arguments(
    values: Tensor, generator: Generator, *, groups: int = 1, weighted: bool = True, sums: str = "both"
) -> dict[str, Any]:
    """Rows are spread over the groups, neither sorted nor evenly; the sums start from what is there."""
    rows = values.shape[0]

    def start() -> Tensor:
        return torch.randn((groups, *values.shape[1:]), generator=generator, dtype=torch.float64)

    return {
        "values": values,
        "weight": torch.randn(rows, generator=generator, dtype=torch.float64) if weighted else None,
        "group": torch.arange(rows) * 5 % 7 % groups,
        "total": start() if sums in ("both", "total") else None,
        "squares": start() if sums in ("both", "squares") else None,
    }


def _case(name: str, shape: tuple[int, ...], *, last: bool = False, workload: bool = False, **settings: Any) -> Case:
    """`last`: each row is channels last, whatever axes precede its last three."""

    def build(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
        values = torch.randn(shape, generator=generator).to(dtype)
        if last:
            values = values.movedim(-3, -1).contiguous().movedim(-1, -3)
        return _arguments(values, generator, **settings)

    return Case(name, build, FLOATING, workload)


def _sliced(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """Every second column of wider rows, and numbers of rows taken from wider tables."""
    values = torch.randn((5, 4, 9, 22), generator=generator).to(dtype)[:, 1:, :, ::2]
    arguments = _arguments(values, generator, groups=2)
    return arguments | {name: arguments[name].repeat_interleave(2)[::2] for name in ("weight", "group")}


def _transposed(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """Rows, height and width in unusual order in memory."""
    return _arguments(torch.randn((12, 4, 3, 10), generator=generator).to(dtype).permute(1, 2, 3, 0), generator)


def _expanded(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """One row that stands for six, and one value for a plane."""
    return _arguments(torch.randn((3, 1, 1), generator=generator).to(dtype).expand(6, 3, 8, 9), generator, groups=2)


CASES = (
    _case("eight gradients 224, NCHW", (8, 1, 3, 224, 224), sums="total", weighted=False, workload=True),
    _case("eight gradients 224, NHWC", (8, 1, 3, 224, 224), sums="total", weighted=False, last=True, workload=True),
    _case("both moments 224, NHWC", (8, 1, 3, 224, 224), last=True, workload=True),
    _case("no rows", (0, 3, 8, 8)),
    _case("no elements", (2, 3, 0, 5), groups=2),
    _case("one element", (3, 1)),
    _case("no axes", (5,), groups=2),
    _case("several groups", (9, 3, 7, 5), groups=4),
    _case("several groups, NHWC", (9, 3, 7, 5), groups=4, last=True),
    _case("a group without rows", (2, 3, 7, 5), groups=7),
    _case("unweighted", (6, 3, 7, 5), groups=2, weighted=False),
    _case("total only", (6, 3, 7, 5), groups=2, sums="total"),
    _case("squares only", (6, 3, 7, 5), groups=2, sums="squares", last=True),
    _case("several targets", (4, 3, 2, 9, 8), groups=2, last=True),
    _case("five axes", (4, 2, 3, 4, 5, 6), groups=2, last=True),
    _case("seventy channels", (3, 70, 9, 9), last=True),
    _case("several tiles", (2, 3, 41, 67), last=True),
    _case("signal", (7, 2, 50), groups=3),
    Case("sliced", _sliced, FLOATING),
    Case("transposed", _transposed, FLOATING),
    Case("expanded", _expanded, FLOATING),
)
