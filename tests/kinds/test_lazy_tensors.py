"""Tensors of a call whose memory does not hold what they stand for: resolved, or refused in words.

The truth is what a contiguous copy of the same numbers gives, and float64 for a model's own.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from views import VIEWS

import xai_fast as xf


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(32, 4),
    ).eval()  # fmt: skip


INPUTS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
SEGMENTS = torch.arange(16)[:, None] // 4 * 4 + torch.arange(16) // 4
CALLS = {
    "scores": lambda m, x: xf.Engine.of(m).scores(x, 1),
    "Occlusion": lambda m, x: xf.Occlusion(m, window=4).attribute(x, target=1),
    "Saliency": lambda m, x: xf.Saliency(m).attribute(x, target=1),
    "SmoothGrad": lambda m, x: xf.SmoothGrad(m, n_samples=3).attribute(x, target=1),
    "IntegratedGradients": lambda m, x: xf.IntegratedGradients(m, n_steps=4).attribute(x, target=1),
    "RISE": lambda m, x: xf.RISE(m, n_masks=8).attribute(x, target=1),
    "Lime": lambda m, x: xf.Lime(m, segments=SEGMENTS, n_samples=20).attribute(x, target=1),
    "PartitionShap": lambda m, x: xf.PartitionShap(m, n_evaluations=20).attribute(x, target=1),
    "GradCAM": lambda m, x: xf.GradCAM(m, layer="2").attribute(x, target=1),
    "DeepLift": lambda m, x: xf.DeepLift(m).attribute(x, target=1),
}
AS_INPUTS = {
    **VIEWS,
    "imaginary part of a conjugate": lambda x: torch.complex(x, -x).conj().imag,
    "one row for all": lambda x: x[:1].expand_as(x),
    "windows over each other": lambda x: x.flatten().as_strided(x.shape, (3, 200, 5, 1)),
    "zeros without memory": lambda x: torch._efficientzerotensor(x.shape),
}


@pytest.mark.numbers
@pytest.mark.parametrize("call", CALLS)
def test_inputs_are_explained_as_they_are_meant(net, call):
    for kind, view in AS_INPUTS.items():
        odd = view(INPUTS)
        copy = torch.empty(odd.shape).copy_(odd.detach().as_subclass(Tensor))
        actual, expected = CALLS[call](net, odd), CALLS[call](net, copy)
        assert type(actual) is Tensor, kind
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item(), msg=kind)


BESIDES = {
    "baseline": lambda m, v: xf.Occlusion(m, window=4, baseline=v(INPUTS[:1] * 0.5)).attribute(INPUTS, target=1),
    "baselines": lambda m, v: xf.GradientShap(m, baselines=v(INPUTS * 0.5), n_samples=3).attribute(INPUTS, target=1),
    "segments": lambda m, v: xf.FeatureAblation(m, segments=v(SEGMENTS)).attribute(INPUTS, target=1),
    "sample_ids": lambda m, v: xf.RISE(m, n_masks=8).attribute(INPUTS, target=1, sample_ids=v(torch.tensor([3, 5]))),
    "target": lambda m, v: xf.Saliency(m).attribute(INPUTS, target=v(torch.tensor([1, 2]))),
    "embedding": lambda m, v: xf.Saliency(m).attribute(INPUTS, target=xf.targets.similarity(v(INPUTS[0, 0, 0, :4]))),
}


@pytest.mark.numbers
@pytest.mark.parametrize("argument", BESIDES)
def test_other_tensors_of_a_call_are_read_as_they_are_meant(net, argument):
    expected = BESIDES[argument](net, lambda value: value)
    for kind, view in VIEWS.items():
        actual = BESIDES[argument](net, view)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item(), msg=kind)


WITHOUT_MEMORY = {"sparse": lambda x: x.to_sparse(), "meta": lambda x: x.to("meta")}


@pytest.mark.parametrize("kind", WITHOUT_MEMORY)
@pytest.mark.parametrize("argument", ["inputs", *BESIDES])
def test_tensors_without_memory_are_named(net, argument, kind):
    call = BESIDES.get(argument, lambda m, v: xf.Occlusion(m, window=4).attribute(v(INPUTS), target=1))
    name = "classes" if argument == "target" else argument
    with pytest.raises((TypeError, ValueError), match=f"`({name}|target)`"):
        call(net, WITHOUT_MEMORY[kind])


@pytest.mark.numbers
@pytest.mark.parametrize("plan", ["dense", "auto"])
def test_weights_and_activations_are_read_as_they_are_meant(net, plan):
    """Lazily negated weights, biases and activations, against float64."""

    class Negated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3, padding=1), nn.Linear(32, 4)
            for layer, source in zip(self.children(), (net[0], net[2], net[6]), strict=True):
                layer.weight = nn.Parameter(torch._neg_view(-source.weight.detach()))
                layer.bias = nn.Parameter(torch._neg_view(-source.bias.detach()))

        def forward(self, x: Tensor) -> Tensor:
            z = self.first(x)
            z = torch.complex(z, -z).conj().imag
            return self.head(self.second(z).relu().mean((2, 3)))

    class Plain(Negated):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.second(self.first(x)).relu().mean((2, 3)))

    truth = xf.Occlusion(xf.Engine(Plain().eval().double(), plan="dense"), window=4).attribute(
        INPUTS.double(), target=1
    )
    values = xf.Occlusion(xf.Engine(Negated().eval(), plan=plan), window=4).attribute(INPUTS, target=1)
    assert (values - truth).abs().max() <= 1e-4 * truth.abs().max()
