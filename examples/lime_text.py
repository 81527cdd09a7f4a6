"""Which words give a text away: LIME and Shapley values of a small text classifier, as coloured pages.

    python examples/lime_text.py --out lime_text.html

The classifier (term frequencies and a logistic regression, by scikit-learn) reads sentences from the documentation of
four Python libraries and says which library they are about. Words in one colour speak for the answer, in the other
against it; the deeper, the more.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import numpy as np
from _command_line import parse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import xai_fast as xf

LIBRARIES = {
    "images": ("skimage.filters", "skimage.morphology", "skimage.segmentation", "skimage.transform", "skimage.measure"),
    "numbers": ("numpy.linalg", "numpy.random", "numpy.fft", "numpy.polynomial.polynomial", "numpy.ma"),
    "networks": ("torch.nn", "torch.nn.functional", "torch.optim", "torch.utils.data", "torch.nn.init"),
    "science": ("scipy.stats", "scipy.signal", "scipy.optimize", "scipy.interpolate", "scipy.integrate"),
}
LONGEST = 60  # words


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


def main(arguments: list[str] | None = None) -> Path:
    """Writes the page and returns its path."""
    options = parse(__doc__, "lime_text.html", arguments)
    texts = {topic: sentences(modules) for topic, modules in LIBRARIES.items()}
    topics = list(texts)
    every = [text for topic in topics for text in texts[topic]]
    labels = np.repeat(np.arange(len(topics)), [len(texts[topic]) for topic in topics])
    held_out = np.arange(len(every)) % 5 == 0
    classifier = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=20, max_iter=1000))
    classifier.fit([text for text, out in zip(every, held_out, strict=True) if not out], labels[~held_out])
    unseen = [text for text, out in zip(every, held_out, strict=True) if out]
    probabilities = classifier.predict_proba(unseen)
    right = (probabilities.argmax(1) == labels[held_out]).mean()

    # A long sentence that the classifier gets right and is not quite sure of: its words have to decide.
    sure = probabilities[np.arange(len(unseen)), labels[held_out]]
    long = np.array([len(text.split()) >= 18 for text in unseen])
    chosen = int(np.where((sure > 0.5) & long, np.abs(sure - 0.75), np.inf).argmin())
    samples = 500 if options.coarse else 5000
    found = [
        method(classifier.predict_proba, n_samples=samples, classes=topics).explain(unseen[chosen])
        for method in (xf.LimeText, xf.ShapleyText)
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lime, shapley = (explanation.as_html() for explanation in found)
    options.out.write_text(lime, encoding="utf-8")
    beside = options.out.with_name(f"{options.out.stem}_shapley.html")
    beside.write_text(shapley, encoding="utf-8")
    word, weight = found[0].as_list()[0]
    print(
        f"{right:.0%} of {len(unseen)} unseen sentences right; {word!r} weighs {weight:+.2f} for "
        f"{found[0].target_name!r} (p = {found[0].score:.2f}); wrote {beside.name}, wrote {options.out}"
    )
    return options.out


if __name__ == "__main__":
    main()
