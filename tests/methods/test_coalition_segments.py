"""Lime, KernelShap and ShapleySampling with segments of every kind: none, one, many, of each input; refusals."""

from __future__ import annotations

import networks
import pytest
import torch
from subjects import Small, signals

import xai_fast as xf

METHODS = [
    (xf.Lime, {"n_samples": 24, "baseline": 0.3}),
    (xf.Lime, {"n_samples": 24, "baseline": 0.3, "sampler": "glime"}),
    (xf.KernelShap, {"n_samples": 40, "baseline": 0.3}),
    (xf.ShapleySampling, {"n_permutations": 2, "baseline": 0.3}),
]
methods = pytest.mark.parametrize(("method", "settings"), METHODS, ids=lambda x: getattr(x, "__name__", ""))


@methods
def test_no_segment_and_one_segment(method, settings):
    model, inputs = Small().double(), signals(2, dtype=torch.float64)
    none = method(model, segments=torch.full((13, 11), -1), **settings)(inputs, 1)
    assert none.values.eq(0).all()
    assert none.evaluations.tolist() == [1, 1]
    with torch.no_grad():
        drop = model(inputs)[:, 1] - model(torch.full_like(inputs, 0.3))[:, 1]
    more = {"alpha": 0.0} if method is xf.Lime else {}
    one = method(model, segments=torch.full((13, 11), 9), **settings, **more)(inputs, 1)
    torch.testing.assert_close(one.values, drop.view(2, 1, 1, 1).expand_as(one.values))
    assert one.evaluations.tolist() == [2, 2]


def test_names_and_one_channel():
    """Lime as its documentation calls it; superpixels of a grey picture; targets that name a class twice."""
    model, inputs = Small(), networks.photos(1, 48)
    found = xf.Lime(model, n_samples=30)(inputs)
    assert found.values.unique().numel() > 2
    grey = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, bias=False), model)
    for method in (xf.Lime(grey, segments="slic", n_samples=40), xf.ShapleySampling(grey, segments="slic")):
        assert method.attribute(inputs[:, :1]).std() > 0
    seven = xf.KernelShap(model, segments="grid", n_samples=140).attribute(
        inputs, torch.tensor([[0, 4, 1, 2, 3, 4, 0]])
    )
    assert seven.shape == (1, 7, 1, 48, 48)
    assert seven[:, 1].equal(seven[:, 5])


@methods
def test_every_input_may_have_segments_of_its_own_in_any_batch(method, settings):
    model, inputs = Small().double(), signals(dtype=torch.float64)
    maps = torch.stack([torch.arange(143).view(13, 11) // size for size in (30, 15, 50)])
    maps[1, :2] = -7
    together = method(model, segments=maps, **settings).attribute(inputs, 1)
    for row in range(3):
        alone = method(model, segments=maps[row], **settings).attribute(inputs[row : row + 1], 1)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-9, atol=1e-10)
    assert together[1, 0, :2].eq(0).all()


@methods
def test_draws_belong_to_an_inputs_id(method, settings):
    model, inputs = Small().double(), signals(dtype=torch.float64)
    made = method(model, segments="grid", **{**settings, "n_samples": 140} if "n_samples" in settings else settings)
    ids = torch.tensor([4, -9, 2**40])
    values = made.attribute(inputs, 1, sample_ids=ids)
    turned = made.attribute(inputs[[2, 0, 1]], 1, sample_ids=ids[[2, 0, 1]])
    torch.testing.assert_close(turned, values[[2, 0, 1]], rtol=1e-9, atol=1e-10)
    assert not torch.allclose(values, made.attribute(inputs, 1))


@methods
def test_segments_that_are_the_baseline_distinguish_no_coalitions(method, settings):
    model, inputs = Small().double(), signals(1, dtype=torch.float64)
    inputs[:, :, 6:] = 0.3
    labels = torch.arange(143).view(13, 11) // 11  # a segment per line
    found = method(model, segments=labels, **settings)(inputs, 1)
    of_all = method(model, segments=labels, **settings)(signals(1, dtype=torch.float64), 1)
    assert found.evaluations.item() < of_all.evaluations.item()
    if method is xf.ShapleySampling:
        torch.testing.assert_close(found.values[:, :, 6:], torch.zeros_like(found.values[:, :, 6:]))


def test_more_segments_than_16_bits_hold():
    inputs = torch.rand(1, 1, 190, 180, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.arange(190 * 180).view(190, 180) * 3 + 5

    def model(x):
        return x.flatten(1).sum(1, keepdim=True)

    with pytest.raises(ValueError, match=r"`segments` are 34200; the regression .* takes at most 8192"):
        xf.KernelShap(model, segments=labels, n_samples=100).attribute(inputs, 0)
    small = xf.Engine(model, batch_size=512)
    lime = xf.Lime(small, segments=labels, n_samples=60, baseline=0.0)(inputs, 0)
    assert lime.values.std() > 0
    assert 0.9 < lime.fit.item() < 1
    with pytest.raises(ValueError, match="`segments` are 34200; the lasso"):
        xf.Lime(small, segments=labels, n_samples=60, baseline=0.0, top_k=5).attribute(inputs, 0)
    blocks = torch.arange(190)[:, None] // 20 * 40000 + torch.arange(180) // 30
    values = xf.ShapleySampling(small, segments=blocks, n_permutations=1).attribute(inputs, 0)
    total = torch.zeros(400000, dtype=torch.float64).index_add_(0, blocks.flatten(), inputs.flatten())
    torch.testing.assert_close(values[0, 0], total[blocks])


REFUSED = {
    "masks": (xf.Lime, {"segments": torch.ones(3, 13, 11, dtype=torch.bool)}, TypeError, "`segments` are masks"),
    "floats": (xf.Lime, {"segments": torch.ones(13, 11)}, TypeError, "`segments`"),
    "a name": (xf.KernelShap, {"segments": "squares"}, ValueError, "`segments` came as 'squares'"),
    "one sample": (xf.Lime, {"n_samples": 1}, ValueError, "`n_samples`"),
    "no width": (xf.Lime, {"kernel_width": 0}, ValueError, "`kernel_width`"),
    "a surrogate": (xf.Lime, {"surrogate": "tree"}, ValueError, "`surrogate` came as 'tree'"),
    "a negative penalty": (xf.Lime, {"alpha": -1.0}, ValueError, "`alpha`"),
    "none selected": (xf.Lime, {"top_k": 0}, ValueError, "`top_k`"),
    "a sampler": (xf.Lime, {"sampler": "kernel"}, ValueError, "`sampler`.*'glime'"),
    "a kernel's sampler": (xf.KernelShap, {"segments": "grid", "sampler": "glime"}, ValueError, "`sampler`"),
    "no orders": (xf.ShapleySampling, {"segments": "grid", "n_permutations": 0}, ValueError, "`n_permutations`"),
    "half a pair": (
        xf.ShapleySampling, {"segments": "grid", "n_permutations": 1, "sampler": "antithetic"}, ValueError,
        "`n_permutations` came as 1",
    ),
    "a seed": (xf.KernelShap, {"segments": "grid", "seed": -1}, ValueError, "`seed`"),
    "a baseline": (xf.KernelShap, {"segments": "grid", "baseline": "grey"}, ValueError, "`baseline`"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_settings(name):
    method, settings, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        method(Small(), **settings)


def test_too_few_samples_for_the_segments_are_refused_before_the_model_runs():
    model = Small()
    with pytest.raises(ValueError, match="`n_samples` came as 20, and 64 segments need at least 128"):
        xf.KernelShap(model, segments="grid", n_samples=20).attribute(signals(), 1)
    with pytest.raises(ValueError, match="needs pictures"):
        xf.Lime(model).attribute(signals(2, (4, 13, 11)), 1)
    assert model.record.rows == 0
