"""lime's explanations of texts, accelerated: the same texts in the same order, the same draws, the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

import xai_fast as xf
from xai_fast import accelerate
from xai_fast.compat import lime as compat

library = pytest.importorskip("lime.lime_text", reason="lime is not installed")

TEXT = "A good film, a <good> story; not a bad one - and not long!"


@pytest.fixture(autouse=True)
def counted():
    """Counts start at 0."""
    accelerate.reset()
    yield
    accelerate.off()


class Classifier:
    """Two classes by a few words and the length; writes down what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked.append(list(texts))
        scores = np.array([t.count("good") - 0.7 * t.count("bad") - 0.4 * t.count("not") + len(t) / 90 for t in texts])
        share = 1 / (1 + np.exp(-scores))
        return np.stack([1 - share, share], 1)


def explained(settings, *, text=TEXT, source=library, **call):
    """The explanation, what the classifier was asked, and the number that comes next."""
    explainer, classifier = source.LimeTextExplainer(**{"random_state": 3, **settings}), Classifier()
    found = explainer.explain_instance(text, classifier, **{"num_samples": 60, "num_features": 5, **call})
    return found, classifier.asked, explainer.random_state.rand()


def same(plain, ours):
    (one, asked, drawn), (other, asked_too, drawn_too) = plain, ours
    assert asked == asked_too
    assert drawn == drawn_too
    assert one.local_exp == other.local_exp
    assert (one.intercept, one.score, one.local_pred) == (other.intercept, other.score, other.local_pred)
    assert one.as_list() == other.as_list()


SETTINGS = {
    "words": ({}, {}),
    "places": ({"bow": False}, {}),
    "places with a mark": ({"bow": False, "mask_string": "_"}, {"num_features": 8}),
    "letters": ({"char_level": True}, {"num_features": 8}),
    "letters in their places": ({"char_level": True, "bow": False}, {}),
    "a tokenizer": ({"split_expression": str.split}, {}),
    "another distance": ({}, {"distance_metric": "euclidean", "top_labels": 2}),
    "one word": ({}, {"text": "good"}),
    "two texts": ({}, {"num_samples": 2, "num_features": 20}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_limes_numbers_and_texts(name):
    settings, call = SETTINGS[name]
    plain = explained(settings, **call)
    with xf.accelerate("lime"):
        same(plain, explained(settings, **call))
    same(plain, explained(settings, source=compat, **call))
    report = accelerate.report()
    assert (report.accelerated, report.passed_on) == (2, 0), str(report)


def test_a_classifier_that_fails_is_not_asked_again():
    asked = []

    def fails(texts):
        asked.append(texts)
        raise ValueError("the user's own error")

    with xf.accelerate("lime"), pytest.raises(ValueError, match="the user's own error"):
        library.LimeTextExplainer().explain_instance(TEXT, fails, num_samples=5)
    assert len(asked) == 1


class Own(library.IndexedString):
    """A user's string that removes words its own way."""

    def inverse_removing(self, words_to_remove):
        return super().inverse_removing(words_to_remove).upper()


def test_strings_of_other_classes_run_limes_code(monkeypatch):
    monkeypatch.setattr(library, "IndexedString", Own)
    plain = explained({})
    with xf.accelerate("lime"):
        same(plain, explained({}))
    (row,) = accelerate.report().rows
    assert row.reason.startswith("an indexed string")
