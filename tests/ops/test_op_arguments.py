"""Arguments that do not fit are named, with what came and what fits, before any backend is chosen."""

from __future__ import annotations

import pytest
import torch

from xai_fast import ops

SHAPE = (2, 3, 8, 9)


def hide_windows(**changes):
    arguments = {
        "inputs": torch.zeros(SHAPE),
        "baseline": torch.zeros(()),
        "sample": torch.tensor([0, 1, 1]),
        "boxes": torch.tensor([[[0, 3], [1, 4], [0, 9]]] * 3),
        "out": torch.zeros(3, *SHAPE[1:]),
    }
    return ops.hide_windows(**{**arguments, **changes})


def window_mean(**changes):
    arguments = {
        "values": torch.zeros(2, 1, 1),
        "boxes": torch.tensor([[[0, 1], [0, 4], [0, 4]]]),
        "shape": (1, 8, 8),
    }
    return ops.window_mean(**{**arguments, **changes})


def cam_reduce(**changes):
    arguments = {"activations": torch.zeros(2, 5, 4, 4), "weights": torch.zeros(2, 1, 5)}
    return ops.cam_reduce(**{**arguments, **changes})


@pytest.mark.parametrize("call", [hide_windows, window_mean, cam_reduce], ids=lambda call: call.__name__)
def test_what_fits_is_taken(call):
    call()


@pytest.mark.parametrize(
    ("call", "changes", "error", "message"),
    [
        (hide_windows, {"inputs": torch.zeros(SHAPE).long()}, TypeError, "`inputs` is torch.int64; it takes"),
        (hide_windows, {"inputs": torch.zeros(3, 8)}, ValueError, r"`inputs` has shape \(3, 8\); it takes \(N, C"),
        (hide_windows, {"baseline": torch.zeros(1).double()}, TypeError, "`baseline` is torch.float64; it takes"),
        (hide_windows, {"baseline": torch.zeros(4)}, ValueError, r"`baseline` has shape \(4,\).*such as \(C, 1, 1\)"),
        (hide_windows, {"baseline": torch.zeros(1, *SHAPE)}, ValueError, "`baseline` has shape"),
        (hide_windows, {"sample": torch.tensor([0, 1])}, ValueError, r"`sample` has shape \(2,\)"),
        (hide_windows, {"sample": torch.tensor([0, 1, 2])}, ValueError, "`sample` has values from 0 to 2; it takes"),
        (hide_windows, {"sample": torch.tensor([0, -1, 1])}, ValueError, "`sample` has values from -1 to 1"),
        (hide_windows, {"sample": torch.zeros(3)}, TypeError, "`sample` is torch.float32"),
        (hide_windows, {"boxes": torch.zeros(3, 2, 2).long()}, ValueError, "`boxes` has shape"),
        (hide_windows, {"boxes": torch.tensor([[[0, 3], [1, 9], [0, 9]]] * 3)}, ValueError, "cut windows at the bord"),
        (hide_windows, {"boxes": torch.tensor([[[0, 3], [-1, 4], [0, 9]]] * 3)}, ValueError, "`boxes` has a box"),
        (hide_windows, {"boxes": torch.tensor([[[0, 3], [5, 4], [0, 9]]] * 3)}, ValueError, "`boxes` has a box"),
        (hide_windows, {"out": torch.zeros(3, 3, 9, 8)}, ValueError, r"`out` has shape \(3, 3, 9, 8\)"),
        (hide_windows, {"out": torch.zeros(3, 3, 8, 1).expand(3, 3, 8, 9)}, ValueError, "`out` is an expanded"),
        (hide_windows, {"out": torch.zeros(3, *SHAPE[1:]).int()}, TypeError, "`out` is torch.int32"),
        (hide_windows, {"out": torch.zeros(3, *SHAPE[1:], device="meta")}, ValueError, "`inputs` is on cpu but"),
        (window_mean, {"values": torch.zeros(2, 1)}, ValueError, r"`values` has shape \(2, 1\); it takes \(N, W, K\)"),
        (window_mean, {"values": torch.zeros(2, 1, 1).half()}, TypeError, "`values` is torch.float16"),
        (window_mean, {"values": torch.zeros(2, 3, 1)}, ValueError, r"`boxes` has shape \(1, 3, 2\).*\(3, 3, 2\)"),
        (window_mean, {"shape": (1, 8, 3)}, ValueError, r"`boxes` has a box outside the extents \(1, 8, 3\)"),
        (window_mean, {"shape": (8,)}, ValueError, "`shape` is"),
        (cam_reduce, {"activations": torch.zeros(2, 5)}, ValueError, "`activations` has shape"),
        (cam_reduce, {"activations": torch.zeros(2, 5, 4, 4).int()}, TypeError, "`activations` is torch.int32"),
        (cam_reduce, {"weights": torch.zeros(2, 1, 4)}, ValueError, r"`weights` has shape \(2, 1, 4\).*\(2, 1, 5\)"),
        (cam_reduce, {"weights": torch.zeros(2, 5)}, ValueError, r"`weights` has shape \(2, 5\)"),
        (cam_reduce, {"size": (4,)}, ValueError, r"`size` is \(4,\); it takes one extent per spatial axis"),
        (cam_reduce, {"activations": torch.zeros(2, 5, 0, 4), "size": (4, 4)}, ValueError, "empty grid"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, changes, error, message):
    # Every backend is out of reach: the error must come before one is chosen.
    with ops.using("cuda"), pytest.raises(error, match=message):
        call(**changes)
