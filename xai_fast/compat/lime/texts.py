"""lime's neighbourhood of a text: its draws, and the texts that they make, written by one look-up each.

The classifier function is asked once, with the texts that lime would give it, in its order: what is saved is time
around it. Distances are scikit-learn's, as there.

Not covered: indexed strings of other classes, and generators that are no `numpy.random.RandomState`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress
from typing import Any

import numpy as np
from lime.lime_text import IndexedCharacters, IndexedString  # pyright: ignore[reportMissingImports]
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.metrics.pairwise import pairwise_distances

from xai_fast.compat.calls import Call, CallersError, Uncovered


def data_labels_distances(call: Call) -> Any:
    """Lime's table of draws, what the classifier says to the text of each, and how far each is from the whole text."""
    string, samples, random = call["indexed_string"], call["num_samples"], call.explainer.random_state
    if type(string) not in (IndexedString, IndexedCharacters) or type(random) is not np.random.RandomState:
        raise Uncovered("an indexed string, or a generator, that is not lime's own")
    words = string.num_words()
    if type(samples) is not int or samples < 1 or not words or not callable(call["classifier_fn"]):
        raise Uncovered("`num_samples` that is no number, a text without words, or a classifier that is no function")
    # From here on nothing may be left to lime, whose draws and the caller's classifier would come twice.
    data = np.ones((samples, words))
    for row, hidden in zip(data[1:], random.randint(1, words + 1, samples - 1), strict=True):
        row[random.permutation(words)[:hidden]] = 0  # what `choice` without replacement draws
    try:
        labels = call["classifier_fn"]([string.raw_string(), *_texts(string, data[1:])])
        distances = pairwise_distances(csr_matrix(data), csr_matrix(data[:1]), metric=call["distance_metric"])
    except Exception as error:  # whatever the caller's classifier raises stays the caller's
        raise CallersError from error
    return data, labels, distances.ravel() * 100


def _texts(string: Any, data: NDArray[np.float64]) -> Iterator[str]:
    """The text without the words that are 0 in each row, or with lime's mark in their places."""
    pieces = string.as_list
    word_of = np.full(len(pieces), data.shape[1])  # what is between words is always there
    for word, positions in enumerate(string.positions):
        word_of[positions] = word
    padded = np.ones(data.shape[1] + 1, dtype=bool)
    for row in data:
        padded[:-1] = row
        shown = padded[word_of].tolist()
        if string.bow:
            yield "".join(compress(pieces, shown))
        else:
            yield "".join([piece if one else string.mask_string for piece, one in zip(pieces, shown, strict=True)])
