"""Score-CAM from a part of its channels: as exact as it says, all of them where it says nothing, and no others."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn

import xai_fast as xf
from xai_fast.engine.estimators.shares import softmax_shares
from xai_fast.graph.processor import assuming

CHANNELS = 400


class Net(nn.Module):
    """Many channels on a small grid, of which the score asks for places."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 12, 5, 4, 2), nn.Tanh(), nn.Conv2d(12, CHANNELS, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(CHANNELS, 3)
        for weight in self.parameters():
            with torch.no_grad():
                weight.copy_(torch.randn(weight.shape, generator=generator) * weight[0].numel() ** -0.5)
        with torch.no_grad():
            self.head.weight.mul_(12)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


NET = Net().eval()
INPUTS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).cumsum(2).cumsum(3) / 20
METHODS = {
    "ScoreCAM": lambda mode, **more: xf.ScoreCAM(engine(mode), layer="body", **more),
    "ISCAM": lambda mode, **more: xf.ISCAM(engine(mode), layer="body", n_samples=3, **more),
    "SSCAM": lambda mode, **more: xf.SSCAM(engine(mode), layer="body", n_samples=2, noise=0.2, **more),
}


@pytest.fixture(autouse=True)
def single():
    """In single precision, whatever the processor: what half precision adds to an error is not what is stated."""
    with assuming(halves=False):
        yield


@functools.cache
def engine(mode):
    return xf.Engine(copy.deepcopy(NET), mode=mode)


@pytest.mark.parametrize("name", METHODS)
def test_errs_as_it_says(name):
    """Over many seeds the mean squared error of the signed map is that of its standard error."""
    make = METHODS[name]
    fixed = {"signed": True, "tolerance": 0.5}
    squares, stated = 0.0, 0.0
    # SS-CAM's noise is of the same seed as the channels, so that its truth is each seed's own.
    truth = make("exact", signed=True)(INPUTS, target=[1, 2]).values.double()
    for seed in range(20):
        if name == "SSCAM":
            truth = make("exact", signed=True, seed=seed)(INPUTS, target=[1, 2]).values.double()
        found = make("turbo", **fixed, seed=seed)(INPUTS, target=[1, 2])
        assert (found.evaluations < CHANNELS).all() or name != "ScoreCAM"
        squares += float((found.values - truth).square().sum())
        stated += float(found.standard_error.double().square().sum())
    assert 0.5 < squares / stated < 2


@pytest.mark.parametrize("resolution", ["input", "native"])
@pytest.mark.parametrize("settings", [{}, {"aug_smooth": True}, {"layer": ["body.1", "body"], "fuse": "mean"}])
def test_is_within_what_is_tolerated(resolution, settings):
    def made(mode, **more):
        return xf.ScoreCAM(engine(mode), **{"layer": "body", "signed": True, **settings, **more})

    exact = made("exact")(INPUTS, target=1, resolution=resolution)
    found = made("turbo", tolerance=0.02)(INPUTS, target=1, resolution=resolution)
    assert exact.standard_error is None
    assert found.standard_error.shape == found.values.shape
    apart = (found.values - exact.values).flatten(1).norm(dim=1) / exact.values.flatten(1).norm(dim=1)
    assert (apart < 4 * 0.02).all()
    assert (found.evaluations <= exact.evaluations).all()


@pytest.mark.parametrize(("halves", "close"), [(False, 1e-6), (True, 2**-6)], ids=["single", "half"])
def test_a_tolerance_that_only_all_channels_meet_is_exact(halves, close):
    """Up to the rounding of the precision in which it runs."""
    with assuming(halves=halves):
        turbo = xf.Engine(copy.deepcopy(NET), mode="turbo")
        exact = METHODS["ScoreCAM"]("exact")(INPUTS, target=1)
        found = xf.ScoreCAM(turbo, layer="body", tolerance=1e-9)(INPUTS, target=1)
    assert torch.allclose(found.values, exact.values, rtol=10 * close, atol=close * float(exact.values.max()))
    assert found.standard_error is None
    assert torch.equal(found.evaluations, exact.evaluations)


def test_principal_components_ask_all_channels():
    exact = METHODS["ScoreCAM"]("exact", eigen_smooth=True)(INPUTS, target=1)
    found = METHODS["ScoreCAM"]("turbo", eigen_smooth=True, tolerance=0.5)(INPUTS, target=1)
    assert torch.equal(found.evaluations, exact.evaluations)
    assert found.standard_error is None


def test_an_input_alone_is_as_among_others():
    """What is drawn hangs on the sample's id, and who is settled on the input itself."""
    ids = torch.tensor([5, 9])
    method = METHODS["ScoreCAM"]("turbo", tolerance=0.3)
    both = method(INPUTS, target=[1, 2], sample_ids=ids)
    alone = method(INPUTS[1:], target=[2], sample_ids=ids[1:])
    assert torch.allclose(both.values[1:], alone.values, rtol=1e-4, atol=1e-6)
    assert both.evaluations[1:].tolist() == alone.evaluations.tolist()


def test_shares_in_closed_form():
    """Scores that are linear in the features are foretold to a hundredth, so that few are asked; all is softmax."""
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(300, 4, generator=generator).double()
    scores = (features @ torch.randn(4, 2, generator=generator).double()) + 1
    counts, asked = torch.randint(1, 4, (300,), generator=generator), torch.randperm(300, generator=generator)[:80]
    none = torch.zeros(300, dtype=torch.bool)
    truth = scores.exp() / (counts[:, None] * scores.exp()).sum(0)
    found = softmax_shares(features, counts, asked, scores[asked], none)
    assert torch.allclose((found.shares.T * counts[:, None]).sum(0), torch.ones(2).double())
    assert (found.shares.T - truth).abs().max() < 0.02 * truth.max()
    every = torch.arange(300)
    noisy = scores + torch.randn(scores.shape, generator=generator)
    own = softmax_shares(features, counts, every, noisy[every], none)
    sure = softmax_shares(features, counts, every, noisy[every], ~none)
    assert torch.allclose(sure.shares.T, noisy.exp() / (counts[:, None] * noisy.exp()).sum(0))
    # With all of them asked the corrections replace what is foretold, up to what leaving one out changes.
    assert torch.allclose(own.shares.T, noisy.exp() / (counts[:, None] * noisy.exp()).sum(0), rtol=0.2, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"tolerance": 0}, ValueError), ({"tolerance": "0.1"}, TypeError), ({"seed": -1}, ValueError)],
)
def test_settings_that_do_not_fit(settings, error):
    with pytest.raises(error, match=next(iter(settings))):
        xf.ScoreCAM(NET, **settings)
