"""Convolutions of every proportion are prepared in no time, and maps are what plain PyTorch in float64 gives."""

from __future__ import annotations

import copy
import time

import pytest
import torch
from torch import nn

import xai_fast as xf
from xai_fast.graph.fused.onednn.convolution import stretches

ODD = {
    "patches as long sums": (nn.Conv2d(3, 8, 48, stride=48), (3, 96, 96)),
    "a kernel as large as the input": (nn.Conv2d(3, 6, 40), (3, 40, 40)),
    "one channel, many positions": (nn.Conv2d(1, 4, 37, stride=5), (1, 64, 64)),
    "a prime number of channels": (nn.Conv2d(131, 5, 3), (131, 8, 8)),
    "a stride over the kernel": (nn.Conv2d(3, 5, 2, stride=7), (3, 30, 31)),
    "a kernel over the input": (nn.Conv2d(3, 5, 9, padding=6), (3, 5, 7)),
    "wide dilation": (nn.Conv2d(3, 5, 3, dilation=9, padding=9), (3, 20, 20)),
    "much padding": (nn.Conv2d(3, 5, 3, padding=30, stride=4), (3, 6, 6)),
    "one position": (nn.Conv2d(3, 5, 1), (3, 1, 1)),
    "oblong": (nn.Conv2d(2, 5, (1, 50), stride=(1, 25)), (2, 3, 100)),
    "groups with a multiplier": (nn.Conv2d(6, 12, 5, stride=3, groups=6), (6, 23, 17)),
    "a long signal": (nn.Conv1d(2, 6, 600, stride=300), (2, 1800)),
    "a volume": (nn.Conv3d(1, 4, 12, stride=12), (1, 24, 24, 24)),
}
SECONDS = 10  # they take tenths of one; what never returned takes for ever


@pytest.mark.parametrize("kind", ODD)
def test_maps_through_odd_convolutions_are_those_of_float64(kind):
    torch.manual_seed(0)
    layer, shape = copy.deepcopy(ODD[kind][0]), ODD[kind][1]
    inputs = torch.randn(1, *shape)
    model = nn.Sequential(layer, nn.ReLU(), nn.Flatten())
    model.append(nn.Linear(model(inputs).shape[1], 3)).eval()
    exact, point = copy.deepcopy(model).double(), inputs.double().requires_grad_()
    began = time.perf_counter()
    values = xf.Saliency(model, absolute=False).attribute(inputs, 1)
    (truth,) = torch.autograd.grad(exact(point)[0, 1], point)
    assert (values - truth).abs().max() <= 1e-4 * truth.abs().max()
    window = max(1, min(shape[1:]) // 2)
    occluded = xf.Occlusion(model, window=window, stride=window).attribute(inputs, 1)
    plain = xf.Occlusion(xf.Engine(exact, plan="dense"), window=window, stride=window).attribute(inputs.double(), 1)
    assert (occluded - plain).abs().max() <= 1e-4 * plain.abs().max()
    assert time.perf_counter() - began < SECONDS


@pytest.mark.parametrize("channels", [1, 2, 3, 7, 64, 131, 512])
@pytest.mark.parametrize("side", [1, 3, 48])
def test_long_sums_are_cut_as_far_as_channels_allow(channels, side):
    weight = torch.zeros(1, channels, side, side)
    parts = stretches(weight, 1)
    cut = weight.chunk(parts, dim=1)
    assert len(cut) == parts
    longest = max(part[0].numel() for part in cut)
    assert longest <= 1152 or parts == 1 or cut[0].shape[1] == 1
    assert parts == 1 or weight[0].numel() >= 1152
