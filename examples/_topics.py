"""A text classifier that tells the documentation of four libraries apart, and a sentence that it is not sure of.

Term frequencies and a logistic regression, by scikit-learn.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

LIBRARIES = {
    "images": ("skimage.filters", "skimage.morphology", "skimage.segmentation", "skimage.transform", "skimage.measure"),
    "numbers": ("numpy.linalg", "numpy.random", "numpy.fft", "numpy.polynomial.polynomial", "numpy.ma"),
    "networks": ("torch.nn", "torch.nn.functional", "torch.optim", "torch.utils.data", "torch.nn.init"),
    "science": ("scipy.stats", "scipy.signal", "scipy.optimize", "scipy.interpolate", "scipy.integrate"),
}
LONGEST = 60  # words


@dataclass(frozen=True)
class Classifier:
    """The trained classifier.

    Attributes:
        topics: their names.
        predict: from texts to the probabilities (texts, topics).
        sentence: one that it has not seen.
        unseen: how many such there were.
        right: the share of them that it got right.
    """

    topics: list[str]
    predict: Callable[[list[str]], np.ndarray]
    sentence: str
    unseen: int
    right: float


def sentences(modules: tuple[str, ...]) -> list[str]:
    """The first paragraph of what every public function and class of the modules says about itself."""
    found = set()
    for module in map(import_module, modules):
        for name in getattr(module, "__all__", dir(module)):
            paragraph = (inspect.getdoc(getattr(module, name, None)) or "").partition("\n\n")[0]
            words = re.sub(r"\s+", " ", paragraph).strip()
            if not name.startswith("_") and 6 <= len(words.split()) <= LONGEST and "(" not in words.split()[0]:
                found.add(words)
    return sorted(found)


@cache
def classifier() -> Classifier:
    """Trains it, which takes a second."""
    texts = {topic: sentences(modules) for topic, modules in LIBRARIES.items()}
    topics = list(texts)
    every = [text for topic in topics for text in texts[topic]]
    labels = np.repeat(np.arange(len(topics)), [len(texts[topic]) for topic in topics])
    held_out = np.arange(len(every)) % 5 == 0
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=20, max_iter=1000))
    model.fit([text for text, out in zip(every, held_out, strict=True) if not out], labels[~held_out])
    unseen = [text for text, out in zip(every, held_out, strict=True) if out]
    probabilities = model.predict_proba(unseen)
    right = (probabilities.argmax(1) == labels[held_out]).mean()

    # A long sentence that the classifier gets right and is not quite sure of: its words have to decide.
    sure = probabilities[np.arange(len(unseen)), labels[held_out]]
    long = np.array([len(text.split()) >= 18 for text in unseen])
    chosen = int(np.where((sure > 0.5) & long, np.abs(sure - 0.75), np.inf).argmin())
    return Classifier(topics, model.predict_proba, unseen[chosen], len(unseen), float(right))
