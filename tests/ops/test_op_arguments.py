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


def region_gather(**changes):
    arguments = {
        "base": torch.zeros(SHAPE),
        "patch": torch.zeros(3, 3, 2, 4),
        "patch_at": torch.tensor([[0, 0], [-9, 99], [5, 6]]),
        "sample": torch.tensor([0, 1, 1]),
        "at": torch.tensor([[0, 0], [-9, 99], [5, 6]]),
        "out": torch.zeros(3, 3, 4, 6),
    }
    return ops.region_gather(**{**arguments, **changes})


OPS = (hide_windows, window_mean, cam_reduce, region_gather)


@pytest.mark.parametrize("call", OPS, ids=lambda call: call.__name__)
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
        (region_gather, {"base": torch.zeros(SHAPE).int()}, TypeError, "`base` is torch.int32; it takes torch.float32"),
        (region_gather, {"base": torch.zeros(3, 8)}, ValueError, r"`base` has shape \(3, 8\); it takes \(N, C, \*S\)"),
        (region_gather, {"patch": torch.zeros(3, 3, 2, 4).half()}, TypeError, "`patch` is torch.float16; it takes"),
        (region_gather, {"patch": torch.zeros(2, 3, 2, 4)}, ValueError, r"`patch` has shape \(2, 3, 2, 4\).*M = 3"),
        (region_gather, {"patch": torch.zeros(3, 1, 2, 4)}, ValueError, r"`patch` has shape \(3, 1, 2, 4\).*C = 3"),
        (region_gather, {"patch": torch.zeros(3, 3, 2)}, ValueError, r"`patch` has shape \(3, 3, 2\).*2 spatial axes"),
        (region_gather, {"patch": torch.zeros(3, 3, 2, 4, device="meta")}, ValueError, "`patch` is on meta but `out`"),
        (region_gather, {"patch": None}, ValueError, "`patch` is None but `patch_at` is not; give both or neither"),
        (region_gather, {"patch_at": None}, ValueError, "`patch_at` is None but `patch` is not"),
        (region_gather, {"patch_at": torch.zeros(3, 2)}, TypeError, "`patch_at` is torch.float32; it takes"),
        (region_gather, {"patch_at": torch.zeros(3, 1).long()}, ValueError, r"`patch_at` has shape \(3, 1\).*\(3, 2\)"),
        (region_gather, {"sample": torch.tensor([0, 1])}, ValueError, r"`sample` has shape \(2,\); it takes \(M,\)"),
        (region_gather, {"sample": torch.tensor([0, 1, 2])}, ValueError, "`sample` has values from 0 to 2; it takes"),
        (region_gather, {"sample": torch.tensor([0, 1, -1])}, ValueError, "`sample` has values from -1 to 1"),
        (region_gather, {"at": torch.zeros(3, 2).int()}, TypeError, "`at` is torch.int32; it takes torch.int64"),
        (region_gather, {"at": torch.zeros(2, 3).long()}, ValueError, r"`at` has shape \(2, 3\).*\(M, len\(S\)\)"),
        (region_gather, {"at": torch.zeros(3, 2, device="meta").long()}, ValueError, "`at` is on meta but `out` is on"),
        (region_gather, {"out": torch.zeros(3, 2, 4, 6)}, ValueError, r"`out` has shape \(3, 2, 4, 6\).*C = 3"),
        (region_gather, {"out": torch.zeros(3, 3, 4)}, ValueError, r"`out` has shape \(3, 3, 4\).*2 spatial axes"),
        (region_gather, {"out": torch.zeros(())}, ValueError, r"`out` has shape \(\)"),
        (region_gather, {"out": torch.zeros(3, 3, 4, 6).double()}, TypeError, "`out` is torch.float64; it takes"),
        (region_gather, {"out": torch.zeros(3, 3, 4, 1).expand(3, 3, 4, 6)}, ValueError, "`out` is an expanded"),
        (region_gather, {"out": torch.zeros(3, 3, 4, 6, device="meta")}, ValueError, "`base` is on cpu but `out`"),
        (region_gather, {"border": "zeros"}, ValueError, "`border` is 'zeros'; it takes one of constant, replicate"),
        (region_gather, {"base": torch.zeros(2, 3, 0, 9), "border": "reflect"}, ValueError, "`base` has the empty ex"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, changes, error, message):
    # Every backend is out of reach: the error must come before one is chosen.
    with ops.using("cuda"), pytest.raises(error, match=message):
        call(**changes)
