"""Whatever a processor is found to be good at, maps are those of the replicas: every switch that it throws, both ways.

What half precision does is in `tests/engine/test_precision.py`, every kernel for itself in `tests/ops`.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from subjects import signals
from table import FIRST
from torch import nn

import xai_fast as xf
from xai_fast import ops
from xai_fast.graph.fused import FusedConvolution
from xai_fast.graph.fused.onednn.bottleneck import KernelBottleneck
from xai_fast.graph.fused.onednn.linear import PackedLinear
from xai_fast.graph.fused.onednn.probe import failed
from xai_fast.graph.fused.onednn.winograd import MinimalFilter
from xai_fast.graph.fused.public import Convolution
from xai_fast.graph.processor import assuming

METHODS = (
    "Occlusion",
    "KernelShap",
    "RISE",
    "AblationCAM",
    "GradCAM",
    "IntegratedGradients",
    "GuidedBackprop",
)
SWITCHES = [(name, way) for name in ("packed", "minimal", "bottlenecks") for way in (True, False)]
SWITCHES += [("fused", False), ("implementation", "public")]
TARGETS = [1, 3, 0]


class Wide(nn.Module):
    """As wide as vectors ask for: 3x3 convolutions, residual sums, an inverted residual, linear layers of positions."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.body, self.body_norm = nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.outer = nn.Conv2d(32, 32, 3, padding=1)
        self.expand, self.depth = nn.Conv2d(32, 48, 1), nn.Conv2d(48, 48, 3, padding=1, groups=48)
        self.project = nn.Conv2d(48, 32, 1)
        self.pool, self.mix, self.head = nn.AvgPool2d(2), nn.Linear(32, 48), nn.Linear(48, 5)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = (x + self.outer(self.body_norm(self.body(x)).relu())).relu()
        x = x + self.project(self.depth(self.expand(x).relu()).relu())
        return self.head(self.mix(self.pool(x).flatten(2).mT).relu().mean(1))


def wide():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Wide().eval()


@cache
def expected(case):
    return case.expected(wide(), signals(), TARGETS)


def assert_as_its_replica(case, mode="exact", close=1e-5):
    truth = expected(case)
    found = case.on(xf.Engine(wide(), mode=mode)).attribute(signals(), TARGETS, **case.call)
    error = (found.double() - truth).abs().max().item()
    assert error <= close * max(truth.abs().max().item(), wide()(signals()).abs().max().item()), error


every = pytest.mark.parametrize(
    "case", [case for case in FIRST if case.method in METHODS], ids=lambda case: case.method
)


@pytest.mark.parametrize(("switch", "way"), SWITCHES, ids=str)
@every
def test_maps_are_those_of_the_replicas_either_way(case, switch, way):
    with assuming(**{switch: way}):
        assert_as_its_replica(case)


@pytest.mark.parametrize("instructions", ["baseline", "avx2"])
@every
def test_maps_are_those_of_the_replicas_on_older_processors(case, instructions):
    if instructions not in ops.instruction_sets():
        pytest.skip(f"no kernels for {instructions} here")
    with ops.limited_to(instructions):
        assert_as_its_replica(case)


@every
def test_maps_are_those_of_the_replicas_without_a_compiler(case):
    with ops.using("reference"):
        assert_as_its_replica(case)


@pytest.mark.parametrize("minimal", [True, False], ids=["minimal filtering", "direct sums"])
@every
def test_maps_in_half_precision_are_near_those_of_the_replicas(case, minimal):
    """Whatever runs it: fused steps in bfloat16 where the processor has them, minimal filtering by reference too."""
    with assuming(halves=True, minimal=minimal):
        assert_as_its_replica(case, mode="fast", close=2**-5)


WAYS = {"packed": (PackedLinear, "fused"), "minimal": (MinimalFilter, "__call__"),
        "bottlenecks": (KernelBottleneck, "forward"),
        "fused": (FusedConvolution, "__call__"), "implementation": (Convolution, "plain")}  # fmt: skip


@pytest.mark.skipif(failed() is not None, reason=str(failed()))
@pytest.mark.parametrize(("switch", "way"), SWITCHES, ids=str)
def test_a_switch_decides_which_way_is_taken(monkeypatch, switch, way):
    owner, name = WAYS[switch]
    run, calls = getattr(owner, name), []
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: calls.append(1) or run(*args, **kwargs))
    with assuming(**{switch: way}):
        xf.IntegratedGradients(wide(), n_steps=12, baseline=0.5).attribute(signals(), 2)
        xf.RISE(wide(), n_masks=8).attribute(signals(), 2)  # whole forwards
    assert bool(calls) == bool(way)


def test_there_is_no_other_switch():
    with pytest.raises(TypeError, match="speed"), assuming(speed=True):
        pass
