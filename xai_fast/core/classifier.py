"""Text classifiers in one form: from strings to scores (rows, K), whoever they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .guard import own_model

Scores = Callable[[list[str]], Tensor]


def scores_of(classifier: Any) -> tuple[Scores, tuple[str, ...] | None]:
    """A function from strings to float64 scores (rows, K), and the classes' names where they are known.

    Args:
        classifier: a callable from a list of strings to numbers (rows, K): an array, a tensor, nested lists; or a
            Hugging Face text-classification pipeline, whose model and tokenizer are then called directly, and whose
            scores are the probabilities that its model's kind of problem has (independent ones for several labels).
            What exceeds the model's longest input is cut off, as the tokenizer does it.

    Raises:
        TypeError: it cannot be called.
    """
    if hasattr(classifier, "tokenizer") and hasattr(classifier, "model"):
        names = getattr(classifier.model.config, "id2label", None)
        return _pipeline(classifier.model, classifier.tokenizer), tuple(names.values()) if names else None
    if isinstance(classifier, nn.Module) and hasattr(classifier, "config"):
        raise TypeError(
            f"`classifier` came as {type(classifier).__name__}, a Hugging Face model without its tokenizer, and reads "
            'no strings; give `transformers.pipeline("text-classification", model=..., tokenizer=...)`'
        )
    if not callable(classifier):
        raise TypeError(
            f"`classifier` came as {type(classifier).__name__}; give a function from a list of strings to scores (N, K)"
            ", such as a scikit-learn pipeline's `predict_proba`, or a Hugging Face text-classification pipeline"
        )

    def scores(texts: list[str]) -> Tensor:
        return checked(classifier(texts), len(texts))

    return scores, None


def checked(found: Any, rows: int) -> Tensor:
    """What a classifier returned, as float64 (rows, K) on the CPU.

    Raises:
        ValueError: it has another shape, or is no numbers.
    """
    try:
        scores = found.detach() if isinstance(found, Tensor) else torch.as_tensor(np.asarray(found, dtype=np.float64))
    except (TypeError, ValueError):
        raise ValueError(
            f"the `classifier` returned {type(found).__name__}, which holds no numbers; it must return scores (N, K)"
        ) from None
    if scores.ndim != 2 or len(scores) != rows:
        raise ValueError(
            f"the `classifier` returned {tuple(scores.shape)} for {rows} texts; it must return scores ({rows}, K)"
        )
    return scores.double().cpu()


def _pipeline(model: Any, tokenizer: Any) -> Scores:
    several = (
        getattr(model.config, "problem_type", None) == "multi_label_classification" or model.config.num_labels == 1
    )

    @torch.no_grad()
    def scores(texts: Sequence[str]) -> Tensor:
        device = next(model.parameters()).device
        # An empty text has nothing to attend to in some tokenizers; all have a length of at least one with a blank.
        tokens = tokenizer([text or " " for text in texts], padding=True, truncation=True, return_tensors="pt")
        with own_model(model):
            logits = model(**tokens.to(device)).logits.double()
        return checked(logits.sigmoid() if several else logits.softmax(1), len(texts))

    return scores
