"""lime accelerated gives what lime gives, with its draws and batches; models are taken in a function's place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from subjects import Small

import xai_fast as xf
from xai_fast import accelerate
from xai_fast.compat import lime as compat

library = pytest.importorskip("lime.lime_image", reason="lime is not installed")

IMAGE = np.random.default_rng(0).random((14, 12, 3))
SEGMENTS = (np.arange(14)[:, None] // 4) * 3 + np.arange(12)[None] // 4


@pytest.fixture(autouse=True)
def counted():
    """Counts start at 0."""
    accelerate.reset()
    yield
    accelerate.off()


class Hidden:
    """A place where nobody looks."""

    __slots__ = ("model",)


class Classifier:
    """A function of images that writes down what it was asked; its model is hidden."""

    def __init__(self, fails=False):
        self.hidden, self.asked, self.fails = Hidden(), [], fails
        self.hidden.model = Small()

    def __call__(self, images):
        if self.fails and self.asked:
            raise ValueError("the user's own error")
        self.asked.append(images.copy())
        with torch.no_grad():
            scale = 255 if images.dtype == np.uint8 else 1
            return self.hidden.model(torch.from_numpy(images).permute(0, 3, 1, 2).float() / scale).softmax(1).numpy()


def explained(classifier, image=IMAGE, *, segments=SEGMENTS, source=library, **settings):
    explainer = source.LimeImageExplainer(random_state=3)
    settings = {"num_samples": 23, "batch_size": 5, "top_labels": 2, **settings}
    return explainer.explain_instance(image, classifier, segmentation_fn=lambda _image: segments, **settings)


def accelerated(run):
    with xf.accelerate("lime"):
        return run()


def same(plain, ours, tolerance=0.0):
    assert plain.top_labels == ours.top_labels
    for label in plain.top_labels:
        one, other = dict(plain.local_exp[label]), dict(ours.local_exp[label])
        assert one.keys() == other.keys()
        assert max(abs(weight) for weight in one.values()) > 1e-3
        for segment in one:
            assert abs(one[segment] - other[segment]) <= tolerance
    assert abs(plain.score - ours.score) <= tolerance


SETTINGS = {
    "means": {},
    "a colour": {"hide_color": 0},
    "bytes": {"image": (255 * IMAGE).astype(np.uint8)},
    "numbers from 1": {"segments": SEGMENTS + 1},
    "numbers with gaps and below 0": {"segments": SEGMENTS * 3 - 4},
    "one batch": {"batch_size": 100},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_limes_numbers_and_batches(name):
    one, other = Classifier(), Classifier()
    plain = explained(one, **SETTINGS[name])
    ours = accelerated(lambda: explained(other, **SETTINGS[name]))
    same(plain, ours)
    assert [(a.shape, a.dtype) for a in one.asked] == [(a.shape, a.dtype) for a in other.asked]
    assert all(np.array_equal(a, b) for a, b in zip(one.asked, other.asked, strict=True))
    (row,) = accelerate.report().rows
    assert row.method == "LimeImageExplainer"
    assert not row.reason
    assert bool(row.note) == name.startswith("numbers"), "labels that lime's columns do not name"


def test_a_model_that_is_seen_in_the_function():
    """The engine answers for it; the function's own work before and after stays."""
    model, rows = Small(), []
    model.head.register_forward_hook(lambda _module, _given, output: rows.append(len(output)))

    def function(images):
        with torch.no_grad():
            return model(torch.from_numpy(images).permute(0, 3, 1, 2).float()).softmax(1).numpy()

    plain = explained(function)
    assert sum(rows) == 23
    rows.clear()
    same(plain, accelerated(lambda: explained(function)), 1e-6)
    assert accelerate.report().accelerated == 1
    assert "forward" not in vars(model)


def test_a_model_in_the_functions_place():
    model = Small()

    def function(images):
        with torch.no_grad():
            return model(torch.from_numpy(images).permute(0, 3, 1, 2).float()).numpy()

    plain = explained(function)
    same(plain, accelerated(lambda: explained(model)), 1e-5)
    same(plain, explained(xf.Engine(model), source=compat), 1e-5)
    assert accelerate.report().accelerated == 2


def test_images_of_bytes_take_the_engines_preprocessing():
    image, model = (255 * IMAGE).astype(np.uint8), Small()

    def preprocess(picture):
        return torch.from_numpy(np.asarray(picture)).permute(2, 0, 1) / 255

    def function(images):
        with torch.no_grad():
            return model(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).numpy()

    engine = xf.Engine(model, preprocess=preprocess)
    same(explained(function, image), accelerated(lambda: explained(engine, image)), 1e-5)
    with pytest.raises(ValueError, match="`classifier_fn` is a model, and how it takes images of uint8"):
        accelerated(lambda: explained(Small(), image))


def test_a_classifier_that_fails_is_not_asked_again():
    classifier = Classifier(fails=True)
    with pytest.raises(ValueError, match="the user's own error"):
        accelerated(lambda: explained(classifier))
    assert len(classifier.asked) == 1


def test_what_is_not_covered_runs_limes_code():
    floats = SEGMENTS.astype(float)
    same(explained(Classifier(), segments=floats), accelerated(lambda: explained(Classifier(), segments=floats)))
    (row,) = accelerate.report().rows
    assert row.reason.startswith("a label map")
