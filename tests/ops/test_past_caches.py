"""Batches that no cache keeps are written past the caches; each row is what it is in a small batch, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from xai_fast import ops

PAST_CACHES = 32 << 20  # bytes, as csrc/cpu/stream.h has it
SHAPE = (3, 61, 67)  # lines that begin anywhere within the memory's lines
PER_ROW = ("sample", "boxes", "keep", "grids", "shifts", "number", "scale", "key", "draw", "reference", "alpha")


def arguments(name: str, rows: int, dtype: torch.dtype, form: torch.memory_format) -> dict[str, Any]:
    """A batch over three photographs, whose rows come in any order."""
    generator = torch.Generator().manual_seed(0)
    _, height, width = SHAPE

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype).to(memory_format=form)

    def below(end: int, *shape: int) -> Tensor:
        return torch.randint(0, end, shape, generator=generator)

    given = {"inputs": random(3, *SHAPE), "sample": below(3, rows)}
    zero = torch.zeros(1, 1, 1, 1, dtype=dtype)
    baseline = {"baseline": zero.expand(3, *SHAPE)}
    if name == "hide_windows":
        start = torch.stack([below(height - 9, rows), below(width - 9, rows)], 1)
        channels = torch.tensor([[0, 3]]).expand(rows, 1, 2)
        boxes = torch.cat([channels, torch.stack([start, start + 9], 2)], 1)
        return {**given, **baseline, "boxes": boxes}
    if name == "hide_segments":
        ragged = below(40, 3, height, width)  # of single pixels, and of whole lines
        ragged[:, : height // 2] = torch.arange(height // 2)[:, None] - 1
        return {**given, **baseline, "labels": ragged, "keep": below(2, rows, 40) > 0}
    if name == "grid_masks":
        shifts = below(-(-height // 3), rows, 2)
        return {**given, **baseline, "grids": below(2, rows, 3, 3) > 0, "shifts": shifts}
    if name == "blend_maps":
        maps, scale = torch.rand(50, 3, 3, generator=generator), torch.rand(rows, generator=generator).double()
        return {**given, "maps": maps, "number": below(50, rows), "scale": scale}
    if name == "add_noise":
        scale = torch.rand(rows, generator=generator).double()
        return {**given, "scale": scale, "key": below(4, rows), "draw": below(50, rows), "seed": 3}
    alpha = torch.rand(rows, generator=generator).double()
    return {**given, "baseline": random(2, *SHAPE), "reference": below(2, rows), "alpha": alpha}


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    "name", ["hide_windows", "hide_segments", "grid_masks", "blend_maps", "add_noise", "path_points"]
)
def test_rows_of_a_batch_beyond_the_caches_are_those_of_small_batches(name, dtype, form):
    if "cpp" not in ops.all_ops()[name].backends:
        pytest.skip("no compiled kernels")
    rows = PAST_CACHES // (torch.Size(SHAPE).numel() * dtype.itemsize) + 3
    given = arguments(name, rows, dtype, form)
    whole = torch.full((rows, *SHAPE), torch.nan, dtype=dtype).to(memory_format=form)
    function = getattr(ops, name)
    with ops.using("cpp"):
        function(**given, out=whole)
        for part in (slice(0, 20), slice(rows // 2, rows // 2 + 1), slice(rows - 9, rows)):
            few = {key: value[part] if key in PER_ROW else value for key, value in given.items()}
            small = torch.full_like(whole[part], torch.nan)
            assert torch.equal(function(**few, out=small), whole[part])
    assert not whole.isnan().any()
