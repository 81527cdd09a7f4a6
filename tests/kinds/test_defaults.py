"""What the caller has set for the thread or the process changes no map: default device and dtype, modes, contexts."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import xai_fast as xf

INPUTS = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
METHODS = {
    "Saliency": {},
    "IntegratedGradients": {"n_steps": 5},
    "SmoothGrad": {"n_samples": 4},
    "GradientShap": {"baselines": torch.zeros(2, 3, 24, 24), "n_samples": 4},
    "DeepLift": {},
    "GuidedBackprop": {},
    "Occlusion": {"window": 8},
    "FeatureAblation": {"segments": "grid"},
    "RISE": {"n_masks": 40},
    "Lime": {"n_samples": 40},
    "KernelShap": {"segments": "grid", "n_samples": 160},
    "ShapleySampling": {"segments": "grid", "n_permutations": 2},
    "PartitionShap": {"n_evaluations": 60},
    "GradCAM": {"layer": "4"},
    "AblationCAM": {"layer": "4"},
    "ReciproCAM": {"layer": "4"},
}


class Positions(nn.Module):
    """A forward that makes tensors of its own, where and of what type the caller says."""

    def forward(self, x):
        return x + torch.arange(x.shape[-1], device=x.device, dtype=x.dtype) / 100


def model(name):
    generator = torch.Generator(device="cpu").manual_seed(0)
    on = {"device": "cpu", "dtype": torch.float32}
    layers = (
        *(nn.Conv2d(3, 8, 3, **on), nn.BatchNorm2d(8, **on), nn.ReLU(), nn.Conv2d(8, 8, 3, **on), nn.ReLU()),
        *([] if name == "DeepLift" else [Positions()]),  # for which its rule has no formula
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4, **on)),
    )
    made = nn.Sequential(*layers).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return made


@contextmanager
def device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def dtype(kind):
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


class Passing(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


SETTINGS = {
    "device meta": lambda: device("meta"),
    "device cuda, there or not": lambda: device("cuda"),
    "device cpu": lambda: device("cpu"),
    "dtype float64": lambda: dtype(torch.float64),
    "dtype float16": lambda: dtype(torch.float16),
    "dtype bfloat16": lambda: dtype(torch.bfloat16),
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "hooks on saved tensors": lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t),
    "a function mode": Passing,
}


@pytest.fixture(scope="module")
def expected():
    return {name: getattr(xf, name)(model(name), **settings).attribute(INPUTS, 1) for name, settings in METHODS.items()}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_settings_of_the_caller_change_nothing(name, setting, expected):
    with SETTINGS[setting]():
        actual = getattr(xf, name)(model(name), **METHODS[name]).attribute(INPUTS, 1)
    assert actual.dtype is torch.float32
    assert actual.device.type == "cpu"
    error = (actual - expected[name]).abs().max() / expected[name].abs().max()
    assert error <= 1e-5
