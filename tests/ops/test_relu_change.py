"""relu_change against a ReLU before and after the change, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from ops_support import run

from xai_fast import ops

LAST = torch.channels_last


def arguments(**changes):
    generator = torch.Generator().manual_seed(0)
    call = {
        "base": torch.randn(2, 5, 6, 7, generator=generator).contiguous(memory_format=LAST),
        "change": torch.randn(3, 5, 2, 3, generator=generator).bfloat16().contiguous(memory_format=LAST),
        "sample": torch.tensor([0, 1, 1]),
        "at": torch.tensor([[0, 0], [4, 4], [2, 1]]),
        "out": torch.empty(3, 5, 2, 3, dtype=torch.bfloat16, memory_format=LAST),
    }
    return {**call, **changes}


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_it_is_the_difference_of_two_rectified_maps(backend):
    if reason := ops.backends()[backend]:
        pytest.skip(reason)
    call = arguments()
    found = run(backend, "relu_change", call)
    for row in range(3):
        top, left = call["at"][row]
        kept = call["base"][call["sample"][row], :, top : top + 2, left : left + 3]
        expected = ((kept + call["change"][row].float()).relu() - kept.relu()).bfloat16()
        assert found[row].equal(expected)


def test_it_may_be_written_over_the_change():
    call = arguments()
    expected = ops.relu_change(**call).clone()
    assert ops.relu_change(**{**call, "out": call["change"]}) is call["change"]
    assert call["change"].equal(expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"base": torch.zeros(2, 5, 6, 7).half()}, TypeError, "`base` is torch.float16; it takes"),
        ({"change": torch.zeros(3, 5, 2, 3)}, TypeError, "`change` is torch.float32; it takes"),
        ({"change": torch.zeros(3, 4, 2, 3).bfloat16()}, ValueError, r"`change` has shape \(3, 4, 2, 3\) and `base`"),
        ({"out": torch.zeros(3, 5, 2, 2).bfloat16()}, ValueError, r"`out` has shape \(3, 5, 2, 2\)"),
        ({"sample": torch.tensor([0, 1, 2])}, ValueError, "`sample` has values from 0 to 2"),
        ({"sample": torch.tensor([0, 1])}, ValueError, r"`sample` has shape \(2,\)"),
        ({"at": torch.tensor([[0, 0], [5, 4], [2, 1]])}, ValueError, r"`at` goes from \[0, 0\] to \[5, 4\]"),
        ({"at": torch.tensor([[0, -1], [4, 4], [2, 1]])}, ValueError, r"begin at \[0, 0\] to \[4, 4\]"),
        ({"at": torch.zeros(3, 2)}, TypeError, "`at` is torch.float32"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, error, message):
    with pytest.raises(error, match=message):
        ops.relu_change(**arguments(**change))
