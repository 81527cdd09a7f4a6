"""Captum accelerated on several inputs, rows of features, further arguments and tuple targets: captum's own numbers."""

from __future__ import annotations

import contextlib

import pytest
import torch
from goldens import apart, both, same_form, tensors
from torch import nn

import xai_fast as xf
from xai_fast import accelerate

attr = pytest.importorskip("captum.attr", reason="captum is not installed")


class Table(nn.Module):
    """Of rows of features; `offset` follows its row, `scale` is one number, `columns` says which features count."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.relu, self.second = nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 3)
        self.eval()

    def forward(self, x, offset=None, scale=None, columns=None):
        x = x if offset is None else x + offset
        x = x if columns is None else x * (torch.arange(7) != columns[:, None])
        scores = self.second(self.relu(self.first(x)))
        return scores if scale is None else scores * scale


class Pair(nn.Module):
    """Of an image and a row of features."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.conv, self.relu, self.head = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(4 * 4 * 4 + 5, 3)
        self.eval()

    def forward(self, image, features, weight=None):
        seen = self.relu(self.conv(image)).flatten(1)
        seen = seen if weight is None else seen * weight[:, None]
        return self.head(torch.cat([seen, features], 1))


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


ROWS, IMAGE, FEATURES = drawn(4, 7), drawn(3, 2, 6, 6), drawn(3, 5)
PAIR = (IMAGE, FEATURES)
FURTHER = (drawn(4, 7) / 3, 1.5, torch.tensor([0, 3, 6, 2]))
TARGET, TARGETS = [2, 0, 1, 1], [0, 2, 1]
MASKS = (torch.arange(36).view(1, 1, 6, 6) // 12, torch.tensor([[2, 2, 3, 3, 4]]))
REFERENCES = (drawn(2, 2, 6, 6) / 2, drawn(2, 5) / 2)

CALLS = {
    "Saliency of rows": lambda: attr.Saliency(Table()).attribute(ROWS, TARGET),
    "InputXGradient of a pair": lambda: attr.InputXGradient(Pair()).attribute(PAIR, TARGETS),
    "IntegratedGradients of rows": lambda: attr.IntegratedGradients(Table()).attribute(
        ROWS, 0.2, TARGET, FURTHER, n_steps=6, return_convergence_delta=True
    ),
    "IntegratedGradients of a pair": lambda: attr.IntegratedGradients(Pair()).attribute(
        PAIR, (REFERENCES[0][:1], 0.3), 1, n_steps=6, return_convergence_delta=True
    ),
    "IntegratedGradients of an image with a weight": lambda: attr.IntegratedGradients(
        lambda x, w: Pair()(x, FEATURES[:1].expand(len(x), -1), w)
    ).attribute(IMAGE, target=1, additional_forward_args=drawn(3), n_steps=4),
    "GradientShap of a pair": lambda: attr.GradientShap(Pair()).attribute(PAIR, REFERENCES, target=TARGETS, stdevs=0.1),
    "NoiseTunnel of rows": lambda: attr.NoiseTunnel(attr.Saliency(Table())).attribute(
        ROWS, nt_samples=3, target=TARGET, additional_forward_args=FURTHER
    ),
    "FeatureAblation of rows": lambda: attr.FeatureAblation(Table()).attribute(ROWS, target=TARGET),
    "FeatureAblation of rows, all outputs": lambda: attr.FeatureAblation(Table()).attribute(ROWS[:1]),
    "FeatureAblation of a pair": lambda: attr.FeatureAblation(Pair()).attribute(
        PAIR, target=TARGETS, feature_mask=MASKS, additional_forward_args=drawn(3)
    ),
    "Occlusion of rows": lambda: attr.Occlusion(Table()).attribute(
        ROWS, (3,), (2,), target=TARGET, additional_forward_args=FURTHER
    ),
    "Occlusion of a pair": lambda: attr.Occlusion(Pair()).attribute(
        PAIR, ((2, 3, 3), (2,)), ((1, 2, 2), 1), target=TARGETS
    ),
    "ShapleyValueSampling of rows": lambda: attr.ShapleyValueSampling(Table()).attribute(
        ROWS, target=TARGET, n_samples=3, additional_forward_args=FURTHER
    ),
    "ShapleyValues of a pair": lambda: attr.ShapleyValues(Pair()).attribute(PAIR, target=TARGETS, feature_mask=MASKS),
    "Lime of rows": lambda: attr.Lime(Table()).attribute(ROWS, target=TARGET, n_samples=20),
    "KernelShap of a pair": lambda: attr.KernelShap(Pair()).attribute(
        tuple(one[:1] for one in PAIR), target=1, feature_mask=MASKS, n_samples=20
    ),
    "DeepLift of rows": lambda: attr.DeepLift(Table()).attribute(ROWS, 0.1, TARGET, return_convergence_delta=True),
    "DeepLift of a pair": lambda: attr.DeepLift(Pair()).attribute(PAIR, target=TARGETS),
    "DeepLiftShap of a pair": lambda: attr.DeepLiftShap(Pair()).attribute(PAIR, REFERENCES, TARGETS),
    "GuidedBackprop of a pair": lambda: attr.GuidedBackprop(Pair()).attribute(PAIR, TARGETS),
    "Deconvolution of rows": lambda: attr.Deconvolution(Table()).attribute(ROWS, TARGET),
    "LayerGradCam of a pair": lambda: _at("conv", attr.LayerGradCam, PAIR, TARGETS, additional_forward_args=drawn(3)),
    "LayerActivation of a pair": lambda: _at("conv", attr.LayerActivation, PAIR),
    "LayerIntegratedGradients of a pair": lambda: _at(
        "conv", attr.LayerIntegratedGradients, PAIR, target=TARGETS, n_steps=4
    ),
    "Saliency of a cell of each": lambda: attr.Saliency(_Grid()).attribute(IMAGE, [(0, 1, 2), (3, 0, 0), (1, 3, 3)]),
}


class _Grid(nn.Module):
    def __init__(self):
        super().__init__()
        self.pair = Pair()

    def forward(self, image):
        return self.pair.conv(image).sigmoid()


def _at(name, method, *arguments, **keywords):
    model = Pair()
    return method(model, model.get_submodule(name)).attribute(*arguments, **keywords)


@pytest.mark.parametrize("name", CALLS)
def test_captums_numbers(name):
    plain, ours, report, as_many = both(CALLS[name])
    same_form(plain, ours)
    scale = tensors(plain)[0].abs().max()
    assert scale > 1e-3, "the network sleeps"
    for one, other in zip(tensors(plain), tensors(ours), strict=True):
        assert (one - other).abs().max() < 5e-6 * scale
    assert as_many, "as many draws as captum's"
    assert (report.accelerated, report.passed_on) == (1, 0), str(report)


def test_what_follows_a_row_is_not_explained_and_counts():
    def run():
        model = Table()
        return tuple(
            attr.IntegratedGradients(model).attribute(ROWS, target=1, additional_forward_args=(one, 1.0), n_steps=4)
            for one in (FURTHER[0], FURTHER[0] + 1)
        )

    plain, ours, report, _ = both(run)
    assert apart(plain[1], plain[0])[0] > 0.1
    assert max(apart(other, one)[0] for one, other in zip(plain, ours, strict=True)) < 5e-6
    assert report.passed_on == 0


def test_one_number_that_changes_between_calls():
    """What has no rows is part of the forward: another value is another forward."""
    model, scale = Table(), torch.tensor(2.0)

    def run():
        found = []
        for value in (1.0, 2.0, 2, scale):
            found.append(attr.FeatureAblation(model).attribute(ROWS, target=1, additional_forward_args=(None, value)))
        scale.fill_(3.0)
        found.append(attr.FeatureAblation(model).attribute(ROWS, target=1, additional_forward_args=(None, scale)))
        scale.fill_(2.0)
        return tuple(found)

    plain, ours, report, _ = both(run)
    assert apart(plain[4], plain[3])[0] > 0.1
    assert max(apart(other, one)[0] for one, other in zip(plain, ours, strict=True)) < 5e-6
    assert report.passed_on == 0


@pytest.mark.parametrize("held", [{"scale": 1.0}, [1.0]])
def test_what_can_be_changed_or_written_into_unseen_is_captums(held):
    """A model prepared for what a container held before would answer for it afterwards."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = Table()

        def forward(self, x, held):
            return self.table(x, scale=held[where])

    where = "scale" if isinstance(held, dict) else 0
    model = Scaled().eval()

    def run():
        found = []
        for value in (1.0, 3.0):
            held[where] = value
            found.append(attr.FeatureAblation(model).attribute(ROWS, target=1, additional_forward_args=(held,)))
        return tuple(found)

    plain, ours, report, _ = both(run)
    assert apart(plain[1], plain[0])[0] > 0.1
    assert max(apart(other, one)[0] for one, other in zip(plain, ours, strict=True)) == 0
    assert (report.accelerated, report.passed_on) == (0, 2)
    assert "which may change unseen" in str(report)


@pytest.mark.parametrize(
    ("reason", "run"),
    [
        ("inputs of several types", lambda: attr.Saliency(Pair()).attribute((IMAGE, FEATURES.double()), TARGETS)),
        ("a further argument of whole numbers", lambda: _with(torch.full((4,), 2**25))),
        ("a further argument of torch.float64", lambda: _with(torch.ones(4).double())),
    ],
)
def test_what_does_not_lie_in_one_batch_is_captums(reason, run):
    accelerate.reset()
    with xf.accelerate("captum"), contextlib.suppress(Exception):  # whatever captum or the model says to it
        run()
    assert any(row.reason.startswith(reason) for row in accelerate.report().rows), str(accelerate.report())


def _with(further):
    return attr.Saliency(lambda x, more: x.sum(1) + more).attribute(ROWS, additional_forward_args=further)
