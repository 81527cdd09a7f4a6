"""Rows on several make-believe CUDA devices: the same maps, every device takes its share, nothing is read per chunk."""

from __future__ import annotations

import copy

import make_believe_gpu as gpu
import pytest
import torch
from make_believe_gpu import device, module_to_device, to_device, to_host
from torch import nn

import xai_fast as xf
from xai_fast.core.prepared import Prepared
from xai_fast.graph.processor import assuming

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there and needs no double")
TWO = ("cuda:0", "cuda:1")
METHODS = {
    "Occlusion": {"window": 3, "stride": 2},
    "RISE": {"n_masks": 60},
    "KernelShap": {"segments": "grid", "n_samples": 200},
    "FeatureAblation": {"segments": "grid"},
    "IntegratedGradients": {"n_steps": 12},
    "SmoothGrad": {"n_samples": 12},
    "GradientShap": {"n_samples": 12, "baselines": torch.zeros(1, 3, 12, 12)},
    "GuidedBackprop": {},
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 5)
        generator = torch.Generator().manual_seed(4)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def forward(self, x):
        return {"logits": self.head(self.norm(self.stem(x)).relu().mean((2, 3)))}


def inputs_of(n=3):
    return torch.randn(n, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def settings_of(method):
    moved = {
        key: to_device(value) if isinstance(value, torch.Tensor) else value for key, value in METHODS[method].items()
    }
    return moved


@pytest.fixture
def rows(monkeypatch):
    """Rows that ran whole, by the number of the device."""
    found = {}
    call = Prepared.__call__

    def counted(self, batch, *args):
        found[batch.number] = found.get(batch.number, 0) + len(batch)
        return call(self, batch, *args)

    monkeypatch.setattr(Prepared, "__call__", counted)
    return found


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_maps_are_those_of_one_device(method, fused):
    truth = getattr(xf, method)(xf.Engine(Net().eval().double(), plan="dense"), **METHODS[method])
    inputs = inputs_of()
    expected = truth.attribute(inputs.double(), [1, 2, 0])
    with device(2), assuming(fused=fused, recorded=True):
        engine = xf.Engine(module_to_device(Net().eval()), plan="dense", batch_size=4, devices=TWO)
        for _ in range(3):
            found = getattr(xf, method)(engine, **settings_of(method)).attribute(to_device(inputs), [1, 2, 0])
            assert found.number == 0
            off = (to_host(found).double() - expected).abs().max()
            assert off <= 1e-5 * expected.abs().max()


def test_every_device_takes_its_share(rows):
    with device(3):
        named = ("cuda:0", "cuda:1", "cuda:2")
        engine = xf.Engine(module_to_device(Net().eval()), plan="dense", batch_size=4, devices=named)
        method, inputs = xf.RISE(engine, n_masks=48), to_device(inputs_of(1))
        method.attribute(inputs, 1)
        rows.clear()
        method.attribute(inputs, 1)
        assert rows == {0: 17, 1: 16, 2: 16}  # the clean row is the first device's
        assert "devices: cuda:0, cuda:1, cuda:2 in turn" in engine.explain_plan(method, inputs)


def test_nothing_is_read_per_chunk():
    counts = []
    for size in (24, 6):
        with device(2) as ledger, assuming(recorded=False, joined=False):
            engine = xf.Engine(module_to_device(Net().eval()), plan="dense", batch_size=size, devices=TWO)
            for method in (xf.RISE(engine, n_masks=48), xf.SmoothGrad(engine, n_samples=48)):
                for _ in range(2):
                    ledger.clear()
                    method.attribute(to_device(inputs_of(1)), 1)
                counts.append((size, *ledger.totals, str(ledger)))
    (_, *few, told), (_, *few_too, told_too), (_, *many, more), (_, *many_too, more_too) = counts
    assert few == many, f"{told}\n{more}"
    assert few_too == many_too, f"{told_too}\n{more_too}"


def test_a_changed_weight_is_seen_on_every_device():
    with device(2):
        model = module_to_device(Net().eval())
        engine = xf.Engine(model, plan="dense", batch_size=4, devices=TWO)
        method, inputs = xf.Occlusion(engine, window=3, stride=2), to_device(inputs_of(1))
        before = method.attribute(inputs, 1)
        with torch.no_grad():
            model.stem.weight.mul_(1.5)
        twin = xf.Engine(module_to_device(copy.deepcopy(model)), plan="dense")
        expected = xf.Occlusion(twin, window=3, stride=2).attribute(inputs, 1)
        found = method.attribute(inputs, 1)
    torch.testing.assert_close(found.held, expected.held, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(before.held, found.held, rtol=1e-3)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (lambda e: xf.GradCAM(e, layer="stem"), "no variants"),
        (lambda e: xf.AblationCAM(e, layer="stem"), "no variants"),
        (lambda e: xf.Occlusion(xf.Engine(e.model, plan="local", devices=TWO), window=3), "the local plan"),
    ],
)
def test_what_keeps_to_one_device_says_so_and_is_right(method, reason):
    inputs = inputs_of(1)
    expected = method(xf.Engine(Net().eval().double())) if reason == "no variants" else None
    with device(2):
        engine = xf.Engine(module_to_device(Net().eval()), devices=TWO)
        made = method(engine)
        told = made.engine.explain_plan(made, to_device(inputs))
        assert f"devices: cuda:0 alone ({reason}" in told or "devices: cuda:0 alone (the" in told, told
        found = to_host(made.attribute(to_device(inputs), 1))
    if expected is not None:
        truth = expected.attribute(inputs.double(), 1)
        assert (found.double() - truth).abs().max() <= 1e-5 * truth.abs().max()


def test_memory_that_ran_out_elsewhere_leaves_the_model_s_own_device(monkeypatch):
    from xai_fast.engine import spread

    def full(*_args, **_kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(spread, "copied", full)
    with device(2):
        engine = xf.Engine(module_to_device(Net().eval()), plan="dense", devices=TWO)
        method = xf.Occlusion(engine, window=3)
        assert "memory of cuda:1 cannot hold" in engine.explain_plan(method, to_device(inputs_of(1)))
        assert method.attribute(to_device(inputs_of(1)), 1).number == 0


@pytest.mark.parametrize(
    ("devices", "error"),
    [
        ("cuda:0", TypeError),
        (3, TypeError),
        ((), ValueError),
        (("cuda:0", "cuda:0"), ValueError),
        (("cuda",), ValueError),
        (("cpu", "cuda:0"), ValueError),
        (("nowhere",), ValueError),
    ],
)
def test_other_devices_are_refused(devices, error):
    with pytest.raises(error, match="`devices`"):
        xf.Engine(Net(), devices=devices)


def test_the_model_s_own_device_has_to_be_named():
    with device(2):
        engine = xf.Engine(module_to_device(Net().eval()), plan="dense", devices=("cuda:1",))
        with pytest.raises(ValueError, match=r"`devices`.*cuda:0"):
            xf.Occlusion(engine, window=3).attribute(to_device(inputs_of(1)), 1)


def test_devices_refuse_each_other_s_tensors():
    with device(2):
        here, there = torch.ones(2, device="cuda:0"), torch.ones(2, device="cuda:1")
        assert (here.number, there.number) == (0, 1)
        with pytest.raises(RuntimeError, match="same device"):
            here + there
        assert (here + there.to("cuda:0")).number == 0
        assert here.to(there).number == 1
        assert isinstance(there.cuda(), gpu.OnDevice)
