"""Calls that are less work than the engine would be run the library's own code, and what a row takes is counted."""

from __future__ import annotations

import pytest
import torch
from goldens import both
from subjects import Small, signals
from torch import nn

from xai_fast.compat import worth
from xai_fast.compat.calls import Uncovered
from xai_fast.compat.watched import watched
from xai_fast.compat.worth import Work


@pytest.fixture
def worth_it():
    """Here the thresholds are what they are."""


def network(width=1):
    torch.manual_seed(0)
    body = (nn.Conv2d(3, 8 * width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*body, nn.Linear(8 * width, 5)).eval()


def test_what_a_row_takes_is_counted():
    answer = watched(network(), torch.zeros(1, 3, 10, 10))
    assert answer.flops == 2 * (8 * 8 * 8 * 27 + 8 * 5)
    assert 5 <= answer.operations <= 8
    twice = Work(20, 2).seconds(answer)
    assert Work(20, 2, gradients=True).seconds(answer) == pytest.approx((1 + worth.BACKWARD) * twice)
    assert twice == pytest.approx(2 * answer.operations * worth.OPERATION + 20 * answer.flops * worth.FLOP)


SEGMENTS = (torch.arange(13 * 11) % 5).view(1, 1, 13, 11)
CALLS = {
    "Saliency": lambda attr, m, x: [attr.Saliency(m).attribute(x, target=1) for _ in range(4)][-1],
    "IntegratedGradients": lambda attr, m, x: attr.IntegratedGradients(m).attribute(x, target=1, n_steps=9),
    "NoiseTunnel": lambda attr, m, x: attr.NoiseTunnel(attr.Saliency(m)).attribute(x, target=1, nt_samples=4),
    "Occlusion": lambda attr, m, x: attr.Occlusion(m).attribute(x, (3, 5, 5), strides=(3, 5, 5), target=1),
    "FeatureAblation": lambda attr, m, x: attr.FeatureAblation(m).attribute(x, target=1, feature_mask=SEGMENTS),
    "ShapleyValueSampling": lambda attr, m, x: attr.ShapleyValueSampling(m).attribute(
        x, target=1, feature_mask=SEGMENTS, n_samples=2
    ),
    "KernelShap": lambda attr, m, x: attr.KernelShap(m).attribute(x[:1], target=1, feature_mask=SEGMENTS, n_samples=9),
    "LayerIntegratedGradients": lambda attr, m, x: attr.LayerIntegratedGradients(m, m.body).attribute(
        x, target=1, n_steps=4
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore")
def test_short_calls_are_the_librarys(name):
    attr, model = pytest.importorskip("captum.attr", reason="captum is not installed"), Small()
    plain, ours, report, as_many = both(lambda: CALLS[name](attr, model, signals()))
    assert torch.equal(plain, ours)
    assert as_many
    assert report.accelerated == 0
    assert "little work on a small model" in str(report)


def test_what_was_asked_before_counts(monkeypatch):
    model, row = network(), torch.zeros(1, 3, 10, 10)
    answer, work = watched(model, row), Work(50, 50)
    for name in ("PREPARING", "FIRST"):
        monkeypatch.setattr(worth, name, 2.5 * work.seconds(answer))
    monkeypatch.setattr(worth, "CALL", 0.5 * work.seconds(answer))
    for _ in range(2):
        with pytest.raises(Uncovered, match="little work"):
            worth.enough(model, answer, work)
    worth.enough(model, answer, work)
    with pytest.raises(Uncovered, match="little work"):
        worth.enough(model, answer, Work(1))
    with pytest.raises(Uncovered, match="little work"):
        worth.enough(network(), answer, work)
    with worth.always():
        worth.enough(network(), answer, Work(1))
