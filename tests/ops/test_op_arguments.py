"""Arguments that do not fit are named, with what came and what fits, before any backend is chosen."""

from __future__ import annotations

import pytest
import torch

from xai_fast import ops

SHAPE = (2, 3, 8, 9)
VAST = torch.zeros(1, 1, 1).expand(4, 2**17, 2**17)


def hide_windows(**changes):
    arguments = {
        "inputs": torch.zeros(SHAPE),
        "baseline": torch.zeros(()),
        "sample": torch.tensor([0, 1, 1]),
        "boxes": torch.tensor([[[0, 3], [1, 4], [0, 9]]] * 3),
        "out": torch.zeros(3, *SHAPE[1:]),
    }
    return ops.hide_windows(**{**arguments, **changes})


def hide_segments(**changes):
    arguments = {
        "inputs": torch.zeros(SHAPE),
        "baseline": torch.zeros(()),
        "labels": torch.zeros(2, 8, 9).long(),
        "sample": torch.tensor([0, 1, 1]),
        "keep": torch.ones(3, 2, dtype=torch.bool),
        "out": torch.zeros(3, *SHAPE[1:]),
    }
    return ops.hide_segments(**{**arguments, **changes})


def grid_masks(**changes):
    arguments = {
        "inputs": torch.zeros(SHAPE),
        "baseline": torch.zeros(()),
        "grids": torch.ones(3, 4, 3, dtype=torch.bool),
        "shifts": torch.tensor([[0, 0], [1, 2], [0, 1]]),
        "sample": torch.tensor([0, 1, 1]),
        "out": torch.zeros(3, *SHAPE[1:]),
    }
    return ops.grid_masks(**{**arguments, **changes})


def grid_reduce(**changes):
    arguments = {
        "grids": torch.ones(3, 4, 3, dtype=torch.bool),
        "shifts": torch.tensor([[0, 0], [1, 2], [0, 1]]),
        "weights": torch.zeros(3, 5).double(),
        "bins": torch.zeros(2, 3, 5, 4, 3).double(),
    }
    return ops.grid_reduce(**{**arguments, **changes})


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


def add_noise(**changes):
    arguments = {
        "inputs": torch.zeros(SHAPE),
        "scale": torch.ones(3).double(),
        "sample": torch.tensor([0, 1, 1]),
        "key": torch.tensor([-(2**63), 0, 2**63 - 1]),
        "draw": torch.tensor([0, 5, 2**32 - 1]),
        "seed": 2**64 - 1,
        "out": torch.zeros(3, *SHAPE[1:]),
    }
    return ops.add_noise(**{**arguments, **changes})


def path_points(**changes):
    arguments = {
        "inputs": torch.zeros(SHAPE),
        "baseline": torch.zeros(1, *SHAPE[1:]),
        "sample": torch.tensor([0, 1, 1]),
        "reference": torch.tensor([0, 0, 0]),
        "alpha": torch.tensor([0.0, 0.5, 1.0]).double(),
        "out": torch.zeros(3, *SHAPE[1:]),
    }
    return ops.path_points(**{**arguments, **changes})


def in_place(**changes):
    batch = torch.zeros(3, *SHAPE[1:])
    return path_points(inputs=batch, out=batch, **{"sample": torch.arange(3), **changes})


def moments(**changes):
    arguments = {
        "values": torch.zeros(SHAPE),
        "weight": torch.ones(2).double(),
        "group": torch.tensor([2, 0]),
        "total": torch.zeros(3, *SHAPE[1:]).double(),
        "squares": torch.zeros(3, *SHAPE[1:]).double(),
    }
    return ops.moments(**{**arguments, **changes})


def surrogate_normal(**changes):
    arguments = {
        "keep": torch.ones(3, 4, dtype=torch.bool),
        "weights": torch.ones(3).double(),
        "scores": torch.ones(3, 2).double(),
        "gram": torch.zeros(5, 5).double(),
        "moment": torch.zeros(5, 2).double(),
    }
    return ops.surrogate_normal(**{**arguments, **changes})


def winograd_convolution(**changes):
    arguments = {
        "inputs": torch.zeros(2, 16, 7, 9),
        "kernels": torch.zeros(2, 16, 16, 32, 1),
        "bias": torch.zeros(64),
        "other": torch.zeros(2, 64, 7, 9),
        "out": torch.zeros(2, 64, 7, 9),
        "padding": 1,
        "relu": False,
    }
    return ops.winograd_convolution(**{**arguments, **changes})


def inverted_bottleneck(**changes):
    arguments = {
        "inputs": torch.zeros(2, 16, 7, 9),
        "expand": torch.zeros(2, 16, 32, 1),
        "expand_bias": torch.zeros(48),
        "depth": torch.zeros(2, 9, 32),
        "depth_bias": torch.zeros(48),
        "project": torch.zeros(1, 64, 32, 1),
        "project_bias": torch.zeros(32),
        "other": torch.zeros(2, 24, 7, 9),
        "out": torch.zeros(2, 24, 7, 9),
        "means": None,
        "stride": 1,
        "padding": 1,
        "activation": "relu6",
    }
    return ops.inverted_bottleneck(**{**arguments, **changes})


def gated_pointwise(**changes):
    arguments = {
        "inputs": torch.zeros(2, 40, 7, 9),
        "gate": torch.zeros(2, 40),
        "project": torch.zeros(1, 64, 32, 1),
        "project_bias": torch.zeros(32),
        "other": torch.zeros(2, 24, 7, 9),
        "out": torch.zeros(2, 24, 7, 9),
    }
    return ops.gated_pointwise(**{**arguments, **changes})


def sign_bits(**changes):
    return ops.sign_bits(**{"values": torch.zeros(SHAPE), **changes})


def bias_relu(**changes):
    arguments = {name: torch.zeros(SHAPE) for name in ("values", "other", "out")}
    return ops.bias_relu(**{**arguments, "bias": torch.zeros(SHAPE[1]), **changes})


def pass_bits(**changes):
    arguments = {"gradient": torch.zeros(SHAPE), "bits": torch.zeros(7).long(), "out": torch.zeros(SHAPE)}
    return ops.pass_bits(**{**arguments, **changes})


def blend_maps(**changes):
    arguments = {
        "inputs": torch.zeros(SHAPE),
        "maps": torch.zeros(4, 2, 3),
        "sample": torch.tensor([0, 1, 1]),
        "number": torch.tensor([3, 0, 1]),
        "scale": torch.ones(3).double(),
        "out": torch.zeros(3, *SHAPE[1:]),
    }
    return ops.blend_maps(**{**arguments, **changes})


OPS = (
    blend_maps,
    hide_windows,
    hide_segments,
    grid_masks,
    grid_reduce,
    window_mean,
    cam_reduce,
    region_gather,
    add_noise,
    path_points,
    in_place,
    moments,
    surrogate_normal,
    winograd_convolution,
    inverted_bottleneck,
    gated_pointwise,
    sign_bits,
    pass_bits,
    bias_relu,
)


@pytest.mark.parametrize("call", OPS, ids=lambda call: call.__name__)
def test_what_fits_is_taken(call):
    call()


@pytest.mark.parametrize(
    ("call", "changes", "error", "message"),
    [
        (hide_segments, {"labels": torch.zeros(2, 8, 9)}, TypeError, "`labels` is torch.float32; it takes torch.int64"),
        (hide_segments, {"labels": torch.zeros(8, 9).long()}, ValueError, r"`labels` has shape \(8, 9\)"),
        (hide_segments, {"labels": torch.full((2, 8, 9), 2)}, ValueError, "`labels` go up to 2 but `keep` has 2 col"),
        (hide_segments, {"keep": torch.ones(3, 2)}, TypeError, "`keep` is torch.float32; it takes torch.bool"),
        (hide_segments, {"keep": torch.ones(2, 2).bool()}, ValueError, r"`keep` has shape \(2, 2\)"),
        (hide_segments, {"baseline": torch.zeros(4)}, ValueError, r"`baseline` has shape \(4,\)"),
        (surrogate_normal, {"keep": torch.ones(3, 4)}, TypeError, "`keep` is torch.float32; it takes torch.bool"),
        (surrogate_normal, {"keep": torch.ones(4).bool()}, ValueError, r"`keep` has shape \(4,\); it takes \(M, K\)"),
        (surrogate_normal, {"weights": torch.ones(3)}, TypeError, "`weights` is torch.float32; it takes torch.float64"),
        (surrogate_normal, {"weights": torch.ones(2).double()}, ValueError, r"`weights` has shape \(2,\)"),
        (surrogate_normal, {"scores": torch.ones(3).double()}, ValueError, r"`scores` has shape \(3,\); it takes \(M"),
        (surrogate_normal, {"scores": torch.ones(3, 2)}, TypeError, "`scores` is torch.float32"),
        (surrogate_normal, {"gram": torch.zeros(4, 4).double()}, ValueError, r"`gram` has.*\(1 \+ K, 1 \+ K\) = \(5"),
        (surrogate_normal, {"gram": torch.zeros(5, 5).double().T}, ValueError, "`gram` has strides"),
        (surrogate_normal, {"moment": torch.zeros(5, 3).double()}, ValueError, r"`moment` has shape \(5, 3\)"),
        (surrogate_normal, {"moment": torch.zeros(2, 5).double().T}, ValueError, "`moment` has strides .* contiguous"),
        (surrogate_normal, {"moment": torch.zeros(5, 2, device="meta").double()}, ValueError, "`moment` is on meta"),
        (grid_masks, {"inputs": torch.zeros(3, 8)}, ValueError, r"`inputs` has shape \(3, 8\); it takes \(N, C, \*S\)"),
        (grid_masks, {"baseline": torch.zeros(4)}, ValueError, r"`baseline` has shape \(4,\).*such as \(C, 1, 1\)"),
        (grid_masks, {"grids": torch.ones(3, 4, 3)}, TypeError, "`grids` is torch.float32; it takes torch.bool"),
        (grid_masks, {"grids": torch.ones(3, 4).bool()}, ValueError, r"`grids` has shape \(3, 4\).* 2 spatial axes"),
        (grid_masks, {"grids": torch.ones(3, 4, 0).bool()}, ValueError, "`grids` has .* at least one cell"),
        (grid_masks, {"grids": torch.ones(2, 4, 3).bool()}, ValueError, r"`grids` has shape \(2, 4, 3\).* M = 3"),
        (grid_masks, {"shifts": torch.zeros(3, 2)}, TypeError, "`shifts` is torch.float32; it takes torch.int64"),
        (grid_masks, {"shifts": torch.zeros(3, 1).long()}, ValueError, r"`shifts` has shape \(3, 1\); it takes \(M, A"),
        (grid_masks, {"shifts": torch.tensor([[0, 3]] * 3)}, ValueError, r"`shifts` go from \[0, 3\].* cell, \[2, 3\]"),
        (grid_masks, {"shifts": torch.tensor([[-1, 0]] * 3)}, ValueError, r"`shifts` go from \[-1, 0\] to \[-1, 0\]"),
        (grid_masks, {"shifts": torch.zeros(3, 2, device="meta").long()}, ValueError, "`shifts` is on meta but `out`"),
        (grid_masks, {"sample": torch.tensor([0, 1, 2])}, ValueError, "`sample` has values from 0 to 2; it takes rows"),
        (grid_masks, {"out": torch.zeros(3, 3, 9, 8)}, ValueError, r"`out` has shape \(3, 3, 9, 8\)"),
        (grid_masks, {"out": torch.zeros(3, *SHAPE[1:]).int()}, TypeError, "`out` is torch.int32"),
        (grid_masks, {"out": torch.zeros(3, 3, 8, 1).expand(3, 3, 8, 9)}, ValueError, "`out` is an expanded"),
        (grid_masks, {"out": torch.zeros(3, *SHAPE[1:], device="meta")}, ValueError, "`inputs` is on cpu but `out`"),
        (grid_reduce, {"grids": torch.ones(3).bool()}, ValueError, r"`grids` has shape \(3,\); it takes \(M, \*c"),
        (grid_reduce, {"grids": torch.ones(3, 4, 2).bool()}, ValueError, r"`bins` has .* = \(2, 3, 5, 4, 2\)"),
        (grid_reduce, {"shifts": torch.tensor([[0, 3]] * 3)}, ValueError, r"`shifts` go from .* cell, \[2, 3\]"),
        (grid_reduce, {"weights": torch.zeros(3, 5)}, TypeError, "`weights` is torch.float32; it takes torch.float64"),
        (grid_reduce, {"weights": torch.zeros(2, 5).double()}, ValueError, r"`weights` has shape \(2, 5\).*\(3, 5\)"),
        (grid_reduce, {"weights": torch.zeros(3).double()}, ValueError, r"`weights` has shape \(3,\)"),
        (grid_reduce, {"bins": torch.zeros(2, 3, 5, 4, 3)}, TypeError, "`bins` is torch.float32"),
        (grid_reduce, {"bins": torch.zeros(3, 4, 3).double()}, ValueError, r"`bins` has shape \(3, 4, 3\)"),
        (grid_reduce, {"bins": torch.zeros(2, 3, 5, 3, 4).double().mT}, ValueError, "`bins` has strides .* contiguous"),
        (grid_reduce, {"bins": torch.zeros(2, 3, 5, 4, 3, device="meta").double()}, ValueError, "`weights` is on cpu"),
        (bias_relu, {"values": torch.zeros(SHAPE).long()}, TypeError, "`values` is torch.int64; it takes"),
        (bias_relu, {"bias": torch.zeros(SHAPE[1] + 1)}, ValueError, r"`bias` has shape .* \(C,\)"),
        (bias_relu, {"other": torch.zeros(SHAPE).double()}, TypeError, "`other` is torch.float64; it takes"),
        (bias_relu, {"out": torch.zeros(SHAPE[:-1])}, ValueError, "`out` has shape .* the shape of `values`"),
        (bias_relu, {"values": torch.zeros(3)}, ValueError, r"`values` has shape \(3,\); it takes"),
        (sign_bits, {"values": torch.zeros(SHAPE).double()}, TypeError, "`values` is torch.float64; it takes"),
        (sign_bits, {"values": torch.zeros(8, 9).T}, ValueError, r"`values` has strides \(1, 9\); it takes dense"),
        (pass_bits, {"bits": torch.zeros(6).long()}, ValueError, r"`bits` has shape \(6,\)"),
        (pass_bits, {"bits": torch.zeros(7)}, TypeError, "`bits` is torch.float32"),
        (pass_bits, {"out": torch.zeros(3, 3, 8, 9)}, ValueError, "`out` has shape"),
        (pass_bits, {"out": torch.zeros(SHAPE).to(memory_format=torch.channels_last)}, ValueError, "`out` has strides"),
        (winograd_convolution, {"inputs": torch.zeros(2, 16, 7, 9).half()}, TypeError, "`inputs` is torch.float16"),
        (winograd_convolution, {"inputs": torch.zeros(16, 7, 9)}, ValueError, r"`inputs` has shape \(16, 7, 9\)"),
        (winograd_convolution, {"inputs": torch.zeros(2, 8, 7, 9)}, ValueError, r"`kernels` has.* 16, 8, P, 1\)"),
        (winograd_convolution, {"kernels": torch.zeros(64, 16, 3, 3)}, ValueError, "which `winograd_kernels` makes"),
        (winograd_convolution, {"kernels": torch.zeros(2, 16, 16, 32, 1).double()}, TypeError, "`kernels` is torch."),
        (winograd_convolution, {"padding": 3}, ValueError, "`padding` is 3; it takes 0, 1 or 2"),
        (winograd_convolution, {"padding": 0}, ValueError, r"`out` has shape \(2, 64, 7, 9\); it takes"),
        (winograd_convolution, {"bias": torch.zeros(32)}, ValueError, r"`bias` has shape \(32,\)"),
        (winograd_convolution, {"other": torch.zeros(2, 64, 1, 1)}, ValueError, "`other` has shape"),
        (inverted_bottleneck, {"inputs": torch.zeros(2, 16, 7, 9).half()}, TypeError, "`inputs` is torch.float16"),
        (inverted_bottleneck, {"inputs": torch.zeros(16, 7, 9)}, ValueError, r"`inputs` has shape \(16, 7, 9\)"),
        (inverted_bottleneck, {"inputs": torch.zeros(2, 8, 7, 9)}, ValueError, "`expand` has shape"),
        (inverted_bottleneck, {"inputs": torch.zeros(2, 16, 0, 9), "padding": 0}, ValueError, "3x3 find no place"),
        (inverted_bottleneck, {"expand": None}, ValueError, "`expand` and `expand_bias` come together"),
        (inverted_bottleneck, {"expand": None, "expand_bias": None}, ValueError, "without `expand` it takes 48"),
        (inverted_bottleneck, {"expand_bias": torch.zeros(32)}, ValueError, "`expand_bias` has shape"),
        (inverted_bottleneck, {"depth": torch.zeros(2, 8, 32)}, ValueError, "`depth` has shape"),
        (inverted_bottleneck, {"depth": torch.zeros(2, 9, 32).double()}, TypeError, "`depth` is torch.float64"),
        (inverted_bottleneck, {"depth_bias": torch.zeros(40)}, ValueError, "`depth_bias` has 40 numbers"),
        (inverted_bottleneck, {"project": torch.zeros(1, 48, 32, 1)}, ValueError, "`project` has shape"),
        (inverted_bottleneck, {"project": None}, ValueError, "`project` and `project_bias` come together"),
        (inverted_bottleneck, {"project_bias": torch.zeros(24)}, ValueError, "`project_bias` has shape"),
        (inverted_bottleneck, {"project": None, "project_bias": None}, ValueError, "without `project` it takes 48"),
        (inverted_bottleneck, {"other": torch.zeros(2, 24, 1, 1)}, ValueError, "`other` has shape"),
        (inverted_bottleneck, {"out": torch.zeros(2, 24, 8, 9)}, ValueError, "`out` has shape"),
        (inverted_bottleneck, {"stride": 3}, ValueError, "`stride` is 3; it takes 1 or 2"),
        (inverted_bottleneck, {"padding": 3}, ValueError, "`padding` is 3; it takes 0 to 2"),
        (inverted_bottleneck, {"activation": "gelu"}, ValueError, "`activation` is 'gelu'; it takes one of none, relu"),
        (inverted_bottleneck, {"means": torch.zeros(2, 24)}, ValueError, "`means` is given with `project`"),
        (gated_pointwise, {"inputs": torch.zeros(2, 40, 7, 9).half()}, TypeError, "`inputs` is torch.float16"),
        (gated_pointwise, {"inputs": torch.zeros(40, 7, 9)}, ValueError, r"`inputs` has shape \(40, 7, 9\)"),
        (gated_pointwise, {"gate": torch.zeros(2, 64)}, ValueError, "`gate` has shape"),
        (gated_pointwise, {"gate": torch.zeros(2, 40).double()}, TypeError, "`gate` is torch.float64"),
        (gated_pointwise, {"project": torch.zeros(1, 40, 32, 1)}, ValueError, "`project` has shape"),
        (gated_pointwise, {"project_bias": torch.zeros(24)}, ValueError, "`project_bias` has shape"),
        (gated_pointwise, {"other": torch.zeros(2, 24, 1, 1)}, ValueError, "`other` has shape"),
        (gated_pointwise, {"out": torch.zeros(2, 40, 7, 9)}, ValueError, "`out` has shape"),
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
        (blend_maps, {"maps": torch.zeros(4, 2)}, ValueError, r"`maps` has shape \(4, 2\); it takes \(B, \*s\)"),
        (blend_maps, {"number": torch.tensor([4, 0, 1])}, ValueError, "`number` has values from 0 to 4; it takes"),
        (blend_maps, {"scale": torch.ones(3)}, TypeError, "`scale` is torch.float32"),
        (blend_maps, {"sample": torch.tensor([0, 1])}, ValueError, r"`sample` has shape \(2,\)"),
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
        (add_noise, {"inputs": torch.zeros(SHAPE).int()}, TypeError, "`inputs` is torch.int32; it takes torch.float32"),
        (add_noise, {"inputs": torch.zeros(3, 8)}, ValueError, r"`inputs` has shape \(3, 8\); it takes \(N, C, \*S\)"),
        (add_noise, {"inputs": VAST, "out": VAST[:3]}, ValueError, r"rows of shape \(131072, 131072\).*up to 2\^33 el"),
        (add_noise, {"scale": torch.ones(3)}, TypeError, "`scale` is torch.float32; it takes torch.float64"),
        (add_noise, {"scale": torch.ones(2).double()}, ValueError, r"`scale` has shape \(2,\); it takes \(M,\)"),
        (add_noise, {"sample": torch.tensor([0, 1, 2])}, ValueError, "`sample` has values from 0 to 2; it takes rows"),
        (add_noise, {"key": torch.zeros(3)}, TypeError, "`key` is torch.float32; it takes torch.int64"),
        (add_noise, {"key": torch.zeros(3, 1).long()}, ValueError, r"`key` has shape \(3, 1\)"),
        (add_noise, {"key": torch.zeros(3, device="meta").long()}, ValueError, "`key` is on meta but `out` is on cpu"),
        (add_noise, {"draw": torch.tensor([0, 1, -1])}, ValueError, "`draw` has values from -1 to 1; it takes numbers"),
        (add_noise, {"draw": torch.tensor([0, 2**32, 1])}, ValueError, "`draw` has values from 0 to 4294967296"),
        (add_noise, {"seed": 2**64}, ValueError, "`seed` is 18446744073709551616; it takes one from 0 to"),
        (add_noise, {"seed": -1}, ValueError, "`seed` is -1; it takes one from 0 to"),
        (add_noise, {"seed": 1.0}, TypeError, "`seed` is a float; it takes an int"),
        (add_noise, {"out": torch.zeros(3, 3, 8, 1).expand(3, 3, 8, 9)}, ValueError, "`out` is an expanded"),
        (add_noise, {"out": torch.zeros(3, *SHAPE[1:]).int()}, TypeError, "`out` is torch.int32"),
        (add_noise, {"out": torch.zeros(3, *SHAPE[1:], device="meta")}, ValueError, "`inputs` is on cpu but `out`"),
        (path_points, {"inputs": torch.zeros(SHAPE).int()}, TypeError, "`inputs` is torch.int32; it takes torch.float"),
        (path_points, {"inputs": torch.zeros(3, 8)}, ValueError, r"`inputs` has shape \(3, 8\); it takes \(N, C, \*S"),
        (path_points, {"baseline": torch.zeros(SHAPE).double()}, TypeError, "`baseline` is torch.float64; it takes"),
        (path_points, {"baseline": torch.zeros(2, 3, 8, 1)}, ValueError, r"`baseline` has shape \(2, 3, 8, 1\).*\(B,"),
        (path_points, {"baseline": torch.zeros(())}, ValueError, r"`baseline` has shape \(\)"),
        (path_points, {"sample": torch.tensor([0, 1, 2])}, ValueError, "`sample` has values from 0 to 2; it takes"),
        (path_points, {"reference": torch.tensor([0, 1, 0])}, ValueError, "`reference` has values from 0 to 1; it ta"),
        (path_points, {"alpha": torch.zeros(3)}, TypeError, "`alpha` is torch.float32; it takes torch.float64"),
        (path_points, {"alpha": torch.zeros(2).double()}, ValueError, r"`alpha` has shape \(2,\); it takes \(M,\)"),
        (path_points, {"out": torch.zeros(3, 3, 8, 1).expand(3, 3, 8, 9)}, ValueError, "`out` is an expanded"),
        (path_points, {"out": torch.zeros(3, 3, 9, 8)}, ValueError, r"`out` has shape \(3, 3, 9, 8\)"),
        (path_points, {"out": torch.zeros(3, *SHAPE[1:], device="meta")}, ValueError, "`inputs` is on cpu but `out`"),
        (in_place, {"sample": torch.tensor([0, 2, 1])}, ValueError, "`out` is `inputs` but `sample` does not count"),
        (moments, {"values": torch.zeros(SHAPE).int()}, TypeError, "`values` is torch.int32; it takes torch.float32"),
        (moments, {"values": torch.zeros(())}, ValueError, r"`values` has shape \(\); it takes \(M, \*E\)"),
        (moments, {"values": torch.zeros([2] * 7)}, ValueError, "it takes .* with at most five axes E"),
        (moments, {"weight": torch.ones(2)}, TypeError, "`weight` is torch.float32; it takes torch.float64"),
        (moments, {"weight": torch.ones(3).double()}, ValueError, r"`weight` has shape \(3,\); it takes \(M,\) = \(2,"),
        (moments, {"group": torch.zeros(2)}, TypeError, "`group` is torch.float32; it takes torch.int64"),
        (moments, {"group": torch.tensor([0, 3])}, ValueError, "`group` has values from 0 to 3; it takes rows of `tot"),
        (moments, {"group": torch.zeros(2, device="meta").long()}, ValueError, "`group` is on meta but `values` is on"),
        (moments, {"total": torch.zeros(3, *SHAPE[1:])}, TypeError, "`total` is torch.float32; it takes torch.float64"),
        (moments, {"total": torch.zeros(3, 9, 8, 3).double().mT}, ValueError, r"`total` has shape \(3, 9, 3, 8\)"),
        (moments, {"squares": torch.zeros(2, *SHAPE[1:]).double()}, ValueError, r"`squares` has shape \(2, 3, 8, 9\)"),
        (moments, {"squares": torch.zeros(3, 3, 9, 8).double().mT}, ValueError, "`squares` has strides .* contiguous"),
        (moments, {"total": None, "squares": None}, ValueError, "`total` and `squares` are both None; give at least"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, changes, error, message):
    # Every backend is out of reach: the error must come before one is chosen.
    with ops.using("cuda"), pytest.raises(error, match=message):
        call(**changes)
