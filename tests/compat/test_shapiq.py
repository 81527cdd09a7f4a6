"""Games of segments for shapiq, whose values are those of the model with segments hidden by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from subjects import Small, signals

from xai_fast.compat.shapiq import game

shapiq = pytest.importorskip("shapiq", reason="shapiq is not installed")

SEGMENTS = torch.arange(13)[:, None] // 5 * 2 + torch.arange(11)[None] // 6


def test_values_are_the_models():
    model, image = Small().double(), signals(1).double()
    found = game(model, image, SEGMENTS, target=2, baseline=0.3)
    assert found.n_players == 6
    coalitions = np.array([[0] * 6, [1] * 6, [1, 0, 1, 0, 0, 1], [0, 1, 1, 1, 1, 1], [1, 0, 1, 0, 0, 1]], dtype=bool)
    keep = torch.from_numpy(coalitions)[:, SEGMENTS][:, None]
    with torch.no_grad():
        scores = model(torch.where(keep, image, 0.3))[:, 2].numpy()
    np.testing.assert_allclose(found(coalitions), scores - scores[0], rtol=1e-10, atol=1e-12)


def test_an_approximator_finds_the_shapley_values():
    model, image = Small(), signals(1)
    found = game(model, image[0], SEGMENTS)
    exact = shapiq.ExactComputer(n_players=6, game=found)(index="SV", order=1)
    approximated = shapiq.KernelSHAP(n=6, random_state=0)(budget=64, game=found)
    for player in range(6):
        assert abs(exact[(player,)] - approximated[(player,)]) < 1e-4
    with torch.no_grad():
        scores = model(torch.cat([image, torch.zeros_like(image)]))
    best = int(scores[0].argmax())
    total = sum(exact[(player,)] for player in range(6))
    assert abs(total - float(scores[0, best] - scores[1, best])) < 1e-4


def test_several_images_are_refused():
    with pytest.raises(ValueError, match=r"`image` came as \(2, 3, 13, 11\); give one image"):
        game(Small(), signals(2), SEGMENTS)
