"""IntegratedGradients to a tolerance: it gets there, says when it does not, and no batch or companion changes it."""

from __future__ import annotations

import warnings

import pytest
import torch
from subjects import Small, signals

import xai_fast as xf


def error(actual, expected):
    return ((actual - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max().item()


@pytest.fixture(scope="module")
def truth():
    model, inputs = Small().double(), signals(dtype=torch.float64)
    exact = xf.IntegratedGradients(model, n_steps=2000, quadrature="middle").attribute(inputs, 1)
    return model, inputs, exact


@pytest.mark.parametrize("tolerance", [0.1, 0.01])
def test_the_map_and_its_sum_are_near(truth, tolerance):
    model, inputs, exact = truth
    method = xf.IntegratedGradients(model, tolerance=tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = method(inputs, 1)
    assert error(found.values, exact) <= 0.06  # what is settled is an estimate of 5 %
    falls = xf.Engine.of(model).scores(inputs, 1) - xf.Engine.of(model).scores(torch.zeros_like(inputs), 1)
    assert (found.completeness_gap.abs() <= tolerance * falls.abs()).all()
    assert torch.allclose(found.values.flatten(1).sum(1) - falls, found.completeness_gap, atol=1e-9)
    assert found.evaluations.max() < 60
    assert found.evaluations.max() <= method.cost(inputs.shape[1:]).forwards


def test_a_linear_path_takes_one_level():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 13 * 11, 5))
    found = xf.IntegratedGradients(model, tolerance=0.01)(signals(), 1)
    assert found.evaluations.tolist() == [10] * 3  # the input, the baseline, eight points


def test_batches_and_targets_and_chunks_change_nothing(truth):
    model, inputs, _ = truth
    targets = torch.tensor([[1, 3], [0, 2], [4, 1]])
    expected = xf.IntegratedGradients(model, tolerance=0.05).attribute(inputs, targets)
    assert expected.shape == (3, 2, 3, 13, 11)
    for n in range(3):
        alone = xf.IntegratedGradients(xf.Engine(model, batch_size=3), tolerance=0.05).attribute(
            inputs[n : n + 1], targets[n : n + 1]
        )
        assert torch.allclose(alone[0], expected[n], atol=1e-10)


def test_giving_up_is_told():
    with pytest.warns(
        UserWarning, match="input 0: the integral has not reached `tolerance` 1e-05 after 9 of at most 9"
    ):
        found = xf.IntegratedGradients(Small(), tolerance=1e-5, max_steps=9)(signals(1), 1)
    assert found.completeness_gap.isfinite().all()
    assert found.evaluations.max() <= 11


def test_refusals():
    model = Small()
    for tolerance, kind in ((0, ValueError), (1.5, ValueError), ("small", TypeError), (True, TypeError)):
        with pytest.raises(kind, match="`tolerance`"):
            xf.IntegratedGradients(model, tolerance=tolerance)
    with pytest.raises(ValueError, match="`tolerance` is for paths of the input"):
        xf.IntegratedGradients(model, tolerance=0.1, layer="body")
    with pytest.raises(ValueError, match="`max_steps`"):
        xf.IntegratedGradients(model, tolerance=0.1, max_steps=0)
    with pytest.raises(ValueError, match="a method with a `tolerance`"):
        xf.SmoothGrad(xf.IntegratedGradients(model, tolerance=0.1))
