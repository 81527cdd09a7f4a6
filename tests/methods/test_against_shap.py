"""Against shap on an awake network of modules: the same draws and references, by the rule of `numerics`.

Shap draws per class and image from numpy's global generator; here it is handed ours. It makes its samples in torch's
default dtype, so that a run in float64 needs that to be float64.
"""

from __future__ import annotations

import copy
import warnings
from contextlib import contextmanager
from functools import lru_cache
from unittest import mock

import networks
import numpy as np
import pytest
import torch
from numerics import compare
from torch import nn

import xai_fast as xf
from xai_fast.core.random import uniforms

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    shap = pytest.importorskip("shap", reason="shap is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
N_SAMPLES, SEED = 7, 5
IDS = torch.tensor([11, 4])  # by which our draws differ between the inputs, as shap's do


@lru_cache(maxsize=1)
def subject():
    """(model in float32, the same in float64, inputs, references); every nonlinear step is a module of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.AvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(12 * 8 * 8, 16), nn.Tanh(), nn.Linear(16, 4)),
        )
        networks.awaken(model, networks.photos(12, 32))
    photos = networks.photos(5, 32)
    return model, copy.deepcopy(model).double(), photos[:2], photos[2:]


@contextmanager
def in_dtype_of(inputs):
    before = torch.get_default_dtype()
    torch.set_default_dtype(inputs.dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Draws:
    """Stands in for numpy's generator: what ours drew for one input after the other, from the start at each seed."""

    def __init__(self, references):
        rows = torch.arange(N_SAMPLES)
        drawn = [uniforms(SEED, torch.full((N_SAMPLES,), int(key)), rows, 2) for key in IDS]
        self.alpha, self.number = torch.cat(drawn).T
        self.number = (self.number * references).long()
        self.row = 0

    def seed(self, _seed):
        self.row = 0

    def choice(self, _count):
        return int(self.number[self.row])

    def uniform(self):
        self.row += 1
        return float(self.alpha[self.row - 1])


def expected_gradients(model, inputs, references):
    """Shap's map of every class, (N, K, C, H, W)."""
    draws = Draws(len(references))
    with (
        in_dtype_of(inputs),
        mock.patch.object(np.random, "seed", draws.seed),
        mock.patch.object(np.random, "choice", draws.choice),
        mock.patch.object(np.random, "uniform", draws.uniform),
    ):
        found = shap.GradientExplainer(model, references).shap_values(inputs.clone(), nsamples=N_SAMPLES, rseed=1)
    return torch.from_numpy(found).movedim(-1, 1)


def deep_shap(model, inputs, references):
    """Shap's map of every class, (N, K, C, H, W)."""
    explainer = shap.DeepExplainer(copy.deepcopy(model), references)
    with in_dtype_of(inputs):
        return torch.from_numpy(explainer.shap_values(inputs.clone(), check_additivity=False)).movedim(-1, 1)


EVERY_CLASS = torch.arange(4).expand(2, 4)


def test_gradient_shap(record_property):
    model, wide, inputs, references = subject()

    def ours(model, inputs):
        method = xf.GradientShap(model, baselines=references, n_samples=N_SAMPLES, seed=SEED)
        return method.attribute(inputs, EVERY_CLASS, sample_ids=IDS)

    truth = expected_gradients(wide, inputs.double(), references.double())
    theirs = expected_gradients(model, inputs, references)
    compare(truth, ours(wide, inputs.double()), ours(model, inputs), theirs, record_property)


def test_deep_lift_shap(record_property):
    model, wide, inputs, references = subject()

    def ours(model, inputs):
        return xf.DeepLiftShap(model, baselines=references).attribute(inputs, EVERY_CLASS)

    truth = deep_shap(wide, inputs.double(), references.double())
    theirs = deep_shap(model, inputs, references)
    compare(truth, ours(wide, inputs.double()), ours(model, inputs), theirs, record_property)


def test_gradient_shap_estimates_what_shap_estimates():
    """With draws of their own both scatter around the same map, as far as their standard errors say."""
    _, wide, inputs, references = subject()
    inputs, references = inputs.double()[:1], references.double()
    repeats = 24

    def scattered(runs):
        runs = torch.stack([run[0].double() for run in runs])
        return runs.mean(0), runs.var(0) / len(runs)

    def ours(seed):
        return xf.GradientShap(wide, baselines=references, n_samples=20, seed=seed).attribute(inputs)

    def theirs(seed):
        with in_dtype_of(inputs):
            explainer = shap.GradientExplainer(wide, references)
            found, _ = explainer.shap_values(inputs.clone(), nsamples=20, rseed=seed, ranked_outputs=1)
        return torch.from_numpy(found)[..., 0]

    mean, variance = scattered([ours(seed) for seed in range(repeats)])
    their_mean, their_variance = scattered([theirs(seed) for seed in range(repeats)])
    distance = ((mean - their_mean) / (variance + their_variance).sqrt()).square().mean()
    assert 0.5 < distance < 2, "one of them draws from something else"
