"""Targets beyond a class index: functions of the (rows, K) scores around one class per input, for `target=`.

A loss is the loss itself: positive attribution raises it. Classes are given as an int (for every input), a sequence or
a LongTensor (N,); None takes each input's argmax, settled once on the clean input.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Classes = int | Sequence[int] | Tensor | None
Target = int | Sequence[int] | Tensor | Callable[..., Tensor] | None
UNSETTLED = -1


@dataclass(frozen=True, eq=False)
class ScoreTarget:
    """A formula of the scores around one or more classes per input; what the functions of this module return.

    Attributes:
        name: for messages and records.
        classes: one entry per class that the formula takes.
        formula: (scores (rows, outputs), index (rows, len(classes))) to (rows,).
    """

    name: str
    classes: tuple[Classes, ...]
    formula: Callable[[Tensor, Tensor], Tensor]

    def columns(self, n_samples: int) -> Tensor:
        """The classes as LongTensor (N, len(classes)); -1 where the clean argmax is to be taken."""
        return torch.stack(
            [
                torch.full((n_samples,), UNSETTLED) if classes is None else class_indices(classes, n_samples, "classes")
                for classes in self.classes
            ],
            dim=1,
        )

    def __call__(self, output: Any, sample: Tensor) -> Tensor:
        """The value (rows,) for a raw output, so that it can be used inside a callable of one's own."""
        index = self.columns(int(sample.max()) + 1)[sample.cpu()]
        if (index == UNSETTLED).any():
            raise ValueError(f"`classes` of {self.name} must be given when it is called directly")
        scores = find_scores(output)
        return self.formula(scores, index.to(scores.device))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.classes))})"


def probability(classes: Classes = None) -> ScoreTarget:
    """softmax(s)_c, in [0, 1]."""
    return ScoreTarget("probability", (classes,), lambda scores, index: _pick(scores.softmax(1), index))


def log_probability(classes: Classes = None) -> ScoreTarget:
    """Log softmax(s)_c, in nats, at most 0."""
    return ScoreTarget("log_probability", (classes,), lambda scores, index: _pick(scores.log_softmax(1), index))


def margin(other: Classes, classes: Classes = None) -> ScoreTarget:
    """s_c − s_other: why this class rather than that one."""
    if other is None:
        raise TypeError("`other` of margin came as None; give the class to compare with")
    return ScoreTarget(
        "margin",
        (other, classes),
        lambda scores, index: _pick(scores, index[:, 1:]) - _pick(scores, index[:, :1]),
    )


def cross_entropy(labels: Classes) -> ScoreTarget:
    """−log softmax(s)_label, in nats: the loss itself, so positive attribution raises the loss."""
    if labels is None:
        raise TypeError("`labels` of cross_entropy came as None; give the true classes")
    return ScoreTarget(
        "cross_entropy",
        (labels,),
        lambda scores, index: F.cross_entropy(scores, index[:, 0], reduction="none"),
    )


def class_named(name: str, classes: Sequence[str] | None) -> int:
    """The index of a class given by name (case aside) or by number, as on the command line.

    Raises:
        ValueError: no class of that name; close ones are listed.
    """
    if name.lstrip("-").isdigit():
        return int(name)
    if classes is None:
        raise ValueError(f"`target` {name!r} is a name, and the model's classes have none; give an index")
    lowered = [known.lower() for known in classes]
    if name.lower() in lowered:
        return lowered.index(name.lower())
    close = difflib.get_close_matches(name.lower(), lowered, n=4, cutoff=0.5) or lowered[:4]
    listed = ", ".join(repr(classes[lowered.index(match)]) for match in close)
    raise ValueError(f"`target` {name!r} is not one of the model's {len(classes)} classes; close are {listed}")


def find_scores(output: Any) -> Tensor:
    """The (rows, K) scores inside whatever a model returns: a tensor, `.logits`, or the first match in a dict or tuple.

    Raises:
        TypeError: nothing in the output is a floating tensor.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits
    if isinstance(output, Mapping):
        named = [output[key] for key in ("logits", "scores", "out", "output", "prediction") if key in output]
        output = [*named, *output.values()]
    if isinstance(output, list | tuple):
        for part in output:
            if isinstance(part, Tensor) and part.is_floating_point():
                return part
    raise TypeError(
        f"the model returned {type(output).__name__}, in which no scores were found; pass the engine `output`, "
        "a function from what the model returns to its (N, K) scores"
    )


def class_indices(classes: Any, n_samples: int, name: str, *, several: bool = False) -> Tensor:
    """Class indices in normal form, a LongTensor (N,); (N, K) passes too where `several`.

    Raises:
        TypeError: they are not integers.
        ValueError: their count does not fit the number of inputs.
    """
    fits = f"an int, {n_samples} ints or a LongTensor ({n_samples},)"
    if several:
        fits += f" or ({n_samples}, K), or a callable"
    index = _as_tensor(classes, name, fits)
    if index.ndim == 0:
        index = index.expand(n_samples)
    if len(index) != n_samples or index.ndim > (2 if several else 1) or index.numel() == 0:
        raise ValueError(f"`{name}` of shape {tuple(index.shape)} does not fit {n_samples} inputs; give {fits}")
    if bool((index < 0).any()):
        raise ValueError(f"`{name}` holds {int(index.min())}; class indices count from 0, give {fits}")
    return index.clone()


def _as_tensor(classes: Any, name: str, fits: str) -> Tensor:
    if isinstance(classes, Tensor):
        if classes.is_floating_point() or classes.is_complex() or classes.dtype is torch.bool:
            raise TypeError(f"`{name}` came as {classes.dtype}; give {fits}")
        return classes.detach().cpu().long()
    try:
        if hasattr(classes, "__index__") and not hasattr(classes, "__len__"):  # NumPy's arrays have both
            return torch.tensor(_as_int(classes))
        if isinstance(classes, str):
            raise TypeError
        return torch.tensor([_as_int(value) for value in classes], dtype=torch.long)
    except TypeError:
        raise TypeError(f"`{name}` came as {classes!r}; give {fits}") from None


def _as_int(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError("a truth value is not a class index")
    return operator.index(value)


def _pick(scores: Tensor, index: Tensor) -> Tensor:
    return scores.gather(1, index[:, :1])[:, 0]
