"""torchcam accelerated gives what torchcam gives; extractors that read the user's own forward run its code."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch
from PIL import Image
from ruled import WritesOver
from subjects import Small, model_state, signals

import xai_fast as xf
from xai_fast import accelerate
from xai_fast.compat import torchcam as compat

library = pytest.importorskip("torchcam.methods", reason="torchcam is not installed")


@pytest.fixture(autouse=True)
def counted():
    """Counts start at 0."""
    accelerate.reset()
    yield
    accelerate.off()


def extracted(name, class_idx=(1, 4, 0), *, layers=("body",), source=library, model=None, inputs=None, **settings):
    """The maps, and the number that torch's generator gives next."""
    model, inputs = Small() if model is None else model, signals() if inputs is None else inputs
    targets = settings.pop("targets", None)
    with getattr(source, name)(model, list(layers), input_shape=inputs.shape[1:], **settings) as extractor:
        scores = model(inputs)
        torch.manual_seed(5)
        class_idx = list(class_idx) if isinstance(class_idx, tuple) else class_idx
        if name in ("GradCAM", "CAM"):
            maps = extractor(class_idx, scores)
        else:
            maps = extractor(None if targets else class_idx, targets=targets)
    return maps, torch.rand(1).item()


def accelerated(run):
    with xf.accelerate("torchcam"):
        return run()


def same(plain, ours, tolerance=1e-4):
    assert len(plain[0]) == len(ours[0])
    for one, other in zip(plain[0], ours[0], strict=True):
        assert (one.shape, one.dtype, one.requires_grad) == (other.shape, other.dtype, other.requires_grad)
        assert one.std() > 0.01
        torch.testing.assert_close(other, one, rtol=0, atol=tolerance)
    assert plain[1] == ours[1], "as many draws as torchcam's"


CALLS = {
    "ScoreCAM": ("ScoreCAM", {}),
    "one class": ("ScoreCAM", {"class_idx": 2, "batch_size": 5}),
    "targets": ("ScoreCAM", {"targets": lambda row: row[1] - row[2]}),
    "a target each": ("ScoreCAM", {"targets": [lambda row, at=at: row[at].exp() for at in range(3)]}),
    "several layers": ("ScoreCAM", {"layers": ("stem_norm", "body")}),
    "one input": ("ScoreCAM", {"class_idx": 2, "inputs": signals(1)}),
    "SSCAM": ("SSCAM", {"num_samples": 3}),
    "ISCAM": ("ISCAM", {"num_samples": 3}),
    "SmoothGradCAMpp": ("SmoothGradCAMpp", {}),
    "frozen parameters": ("SmoothGradCAMpp", {"model": Small().requires_grad_(False)}),
    "smoothed for one class": ("SmoothGradCAMpp", {"class_idx": 3, "layers": ("stem_norm", "body")}),
}


@pytest.mark.parametrize("name", CALLS)
def test_torchcams_numbers(name):
    extractor, how = CALLS[name]
    same(extracted(extractor, **how), accelerated(lambda: extracted(extractor, **how)))
    report = accelerate.report()
    assert (report.accelerated, report.passed_on) == (1, 0), str(report)


@pytest.mark.parametrize("name", ["SSCAM", "SmoothGradCAMpp"])
def test_without_accelerate(name):
    assert issubclass(getattr(compat, name), getattr(library, name))
    same(extracted(name, num_samples=2), extracted(name, num_samples=2, source=compat))
    assert accelerate.report().accelerated == 1


def test_extractors_of_the_users_own_forward_are_listed():
    same(extracted("GradCAM"), accelerated(lambda: extracted("GradCAM")), 0)
    (row,) = accelerate.report().rows
    assert (row.method, row.reason) == ("GradCAM", "it reads the user's own forward")


def test_overlays_are_torchcams_and_listed():
    utils = pytest.importorskip("torchcam.utils")
    photo, mask = (
        Image.fromarray((255 * one).numpy().astype("uint8")) for one in (torch.rand(8, 6, 3), torch.rand(4, 3))
    )
    plain = utils.overlay_mask(photo, mask, alpha=0.4)
    ours = accelerated(lambda: utils.overlay_mask(photo, mask, alpha=0.4))
    assert plain.tobytes() == ours.tobytes()
    assert utils.overlay_mask.__module__ == "torchcam.utils"
    assert not hasattr(utils.overlay_mask, "__xai_fast__")
    with pytest.raises(TypeError, match="arguments need to be PIL"):
        accelerated(lambda: utils.overlay_mask(mask=mask, img="photo"))
    (row,) = accelerate.report().rows
    assert (row.method, row.reason) == ("overlay_mask", "it draws, and asks no model")


def test_overlays_imported_afterwards(monkeypatch):
    monkeypatch.delitem(sys.modules, "torchcam.utils", raising=False)
    with xf.accelerate("torchcam"):
        utils = importlib.import_module("torchcam.utils")
        assert utils.overlay_mask.__xai_fast__.name == "overlay_mask"
    assert not hasattr(utils.overlay_mask, "__xai_fast__")


def test_what_is_not_covered_runs_torchcams_code():
    how = {"targets": lambda row: row[1] - row[2]}
    same(extracted("SmoothGradCAMpp", **how), accelerated(lambda: extracted("SmoothGradCAMpp", **how)), 0)
    assert accelerate.report().passed_on == 1


@pytest.mark.parametrize("layer", ["body", "norm", "second"])
@pytest.mark.parametrize("name", ["SmoothGradCAMpp", "ScoreCAM"])
def test_layers_that_are_written_over(name, layer):
    """As torchcam keeps no copy of what a layer returned, it sees what became of it."""

    def run():
        return extracted(name, layers=(layer,), model=WritesOver())

    same(run(), accelerated(run))
    reasons = [row.reason for row in accelerate.report().rows if row.reason]
    assert len(reasons) == (name == "SmoothGradCAMpp" and layer != "norm")
    assert all("written over later" in reason for reason in reasons)


def test_the_model_stays_as_it_is():
    model, inputs = Small(), signals()
    with library.ScoreCAM(model, "body", input_shape=(3, 13, 11)) as extractor:
        model(inputs)
        before = model_state(model)
        accelerated(lambda: extractor(1))
        assert model_state(model) == before
        model(inputs[:1])
        assert extractor._input.shape[0] == 1, "its hooks are in again"


def test_models_in_training_mode():
    model = Small().train()
    plain = extracted("ScoreCAM", model=Small().train())
    same(plain, accelerated(lambda: extracted("ScoreCAM", model=model)))
    assert model.training
    assert accelerate.report().accelerated == 1, "torchcam asks it in eval mode"


def test_exceptions_stay_torchcams():
    for ask in (
        lambda: extracted("ScoreCAM", class_idx=9),
        lambda: extracted("SmoothGradCAMpp", class_idx=9),
        lambda: extracted("ScoreCAM", targets=lambda row: row),
    ):
        with pytest.raises(Exception) as plain:  # noqa: PT011 - the same one, whichever it is
            ask()
        with pytest.raises(type(plain.value)) as ours:
            accelerated(ask)
        assert str(ours.value) == str(plain.value)
