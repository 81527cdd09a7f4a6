"""Paths end where they should, to the last bit, also when the batch is walked in place."""

from __future__ import annotations

import pytest
import torch
from ops_support import BACKENDS, FUNCTIONS, label, run

from xai_fast import ops

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.fixture(params=["reference", *BACKENDS])
def backend(request):
    if reason := ops.backends()[request.param]:
        pytest.skip(reason)
    return request.param


def arguments(dtype, alpha, shape=(3, 7, 5)):
    rows = len(alpha)
    return {
        "inputs": (torch.randn(rows, *shape) * torch.logspace(-3, 3, 5)).to(dtype),
        "baseline": torch.randn(1, *shape).to(dtype).expand(rows, *shape),
        "sample": torch.arange(rows),
        "reference": torch.arange(rows).flip(0),
        "alpha": torch.tensor(alpha, dtype=torch.float64),
        "out": torch.empty(rows, *shape, dtype=dtype),
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=label)
def test_the_ends_are_exact(backend, dtype):
    call = arguments(dtype, [0.0, 1.0])
    points = run(backend, "path_points", call)
    assert points[0].equal(call["baseline"][0])
    assert points[1].equal(call["inputs"][1])


@pytest.mark.parametrize("dtype", DTYPES, ids=label)
def test_a_path_without_length_stays_where_it_is(backend, dtype):
    call = arguments(dtype, [0.1, 0.3, 0.5, 0.9])
    points = run(backend, "path_points", {**call, "inputs": call["baseline"]})
    assert points.equal(call["baseline"])


def test_shares_of_the_way(backend):
    call = arguments(torch.float64, [0.25, 0.5, 0.75, 2.0])
    start, end, share = call["baseline"], call["inputs"], call["alpha"].reshape(4, 1, 1, 1)
    torch.testing.assert_close(run(backend, "path_points", call), (1 - share) * start + share * end)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=label)
def test_in_place(backend, dtype, last):
    call = arguments(dtype, [0.2, 0.5, 0.8], (3, 41, 5))
    if last:
        call["inputs"] = call["inputs"].contiguous(memory_format=torch.channels_last)
    expected = run(backend, "path_points", call)
    version = call["inputs"]._version
    with ops.using(backend):
        written = FUNCTIONS["path_points"](**{**call, "out": call["inputs"]})
    assert written is call["inputs"]
    assert written.equal(expected)
    assert written._version > version
