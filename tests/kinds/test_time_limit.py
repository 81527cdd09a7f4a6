"""No model makes preparation take for ever: what only saves time later is left out when its time is over, in words."""

import time

import pytest
import torch
from torch import nn

import xai_fast as xf
from xai_fast.engine.replay.local import grouping
from xai_fast.graph import deadline

OVER = "making the model ready took too long"


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
        ).eval()  # fmt: skip


def inputs_of(rows=2):
    return torch.randn(rows, 3, 24, 24, generator=torch.Generator().manual_seed(1))


METHODS = {
    "Saliency": lambda engine: xf.Saliency(engine, absolute=False),
    "GradCAM": lambda engine: xf.GradCAM(engine, layer="4"),
    "AblationCAM": lambda engine: xf.AblationCAM(engine, layer="4"),
    "Occlusion": lambda engine: xf.Occlusion(engine, window=4, stride=2),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("done", ["nothing", "capture"])
def test_what_is_left_out_changes_no_map(method, done, monkeypatch):
    model, inputs = network(), inputs_of()
    truth = METHODS[method](xf.Engine(network().double(), plan="dense")).attribute(inputs.double(), 1)
    engine = xf.Engine(model)
    if done == "capture":
        METHODS["Saliency"](engine).attribute(inputs, 1)
    monkeypatch.setattr(deadline, "SECONDS", -1e9)
    explained = METHODS[method](engine)
    assert (explained.attribute(inputs, 1) - truth).abs().max() <= 1e-4 * truth.abs().max()
    if (done, method) != ("capture", "Saliency"):
        assert OVER in engine.explain_plan(explained, inputs)


def test_what_was_left_out_for_want_of_time_is_planned_by_a_later_call(monkeypatch):
    engine, inputs = xf.Engine(network()), inputs_of()
    METHODS["Saliency"](engine).attribute(inputs, 1)
    method = METHODS["Occlusion"](engine)
    with monkeypatch.context() as over:
        over.setattr(deadline, "SECONDS", -1e9)
        assert OVER in engine.explain_plan(method, inputs)
    assert OVER not in engine.explain_plan(method, inputs)


def test_a_plan_that_is_asked_for_takes_its_time(monkeypatch):
    monkeypatch.setattr(deadline, "SECONDS", -1e9)
    engine = xf.Engine(network(), plan="tail")
    assert OVER not in engine.explain_plan(METHODS["AblationCAM"](engine), inputs_of())


def test_the_search_for_a_layer_ends_in_words(monkeypatch):
    """Hundreds of layers none of which is a map."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Unflatten(1, (2, 2, 2)))
    model.extend([nn.Conv2d(2, 2, 1) for _ in range(30)])
    model.extend([nn.Flatten(), nn.Linear(8, 3)])
    monkeypatch.setattr(deadline, "SECONDS", -1e9)
    with pytest.raises(ValueError, match='`layer` "auto" found no'):
        xf.GradCAM(model.eval()).attribute(torch.randn(1, 3, 4, 4), 1)


def test_a_slow_model_has_longer_and_a_deadline_in_another_is_part_of_it(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    assert not deadline.out_of_time()
    with deadline.limited():
        now[0] = deadline.SECONDS - 1
        with deadline.limited():
            assert not deadline.out_of_time()
            now[0] += 2
            assert deadline.out_of_time()
            deadline.takes(1.0)
            assert not deadline.out_of_time()
        now[0] += 100
        assert deadline.out_of_time()
    assert not deadline.out_of_time()


def test_boxes_of_thousands_of_sizes_are_grouped_whatever_the_time(monkeypatch):
    import numpy as np

    sizes = [np.random.default_rng(axis).integers(1, 200, (3000, 5)) for axis in range(2)]
    monkeypatch.setattr(deadline, "SECONDS", -1e9)
    with deadline.limited():
        groups = grouping.grouped(sizes, np.ones(5), np.ones(3000), 1.0, 24)
    assert sorted(np.concatenate(groups).tolist()) == list(range(3000))


AWKWARD = {
    "hundreds of layers": (lambda: nn.Sequential(*[nn.Conv2d(2, 2, 1) for _ in range(300)]), (2, 6, 6)),
    "many channels": (lambda: nn.Sequential(nn.Conv2d(5000, 3, 1), nn.ReLU()), (5000, 2, 2)),
    "a single position": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), (3, 1, 1)),
    "a wide stride": (lambda: nn.Sequential(nn.Conv2d(3, 4, 2, stride=31), nn.ReLU()), (3, 64, 64)),
}


@pytest.mark.parametrize("kind", AWKWARD)
def test_awkward_models_are_ready_in_seconds(kind):
    torch.manual_seed(0)
    make, shape = AWKWARD[kind]
    model, inputs = make(), torch.randn(1, *shape)
    model.extend([nn.Flatten(), nn.Linear(model(inputs).numel(), 3)]).eval()
    began = time.perf_counter()
    values = xf.Occlusion(model, window=1).attribute(inputs, 1)
    engine = xf.Engine(model, plan="dense")
    torch.testing.assert_close(values, xf.Occlusion(engine, window=1).attribute(inputs, 1), rtol=1e-3, atol=1e-4)
    assert time.perf_counter() - began < 40  # what has no end takes for ever
