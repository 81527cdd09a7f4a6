"""Where the scores are in what a model returns, and which of them are meant."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor

from .plain import plain

Classes = int | Sequence[int] | Tensor | None


SCORE_NAMES = ("logits", "scores", "out", "output", "prediction")  # under which models keep their scores


def find_scores(output: Any) -> Tensor:
    """The (rows, K) scores inside whatever a model returns.

    A floating tensor; or the first one in a tuple or list, and, in a dict, a named tuple or a dataclass, the one called
    `logits`, `scores`, `out`, `output` or `prediction`, before any other, however deep these are nested; or that
    attribute of any other object.

    Raises:
        TypeError: nothing in the output is a floating tensor.
    """
    found = _scores_in(output)
    if found is None:
        came = str(output.dtype) if isinstance(output, Tensor) else type(output).__name__
        raise TypeError(
            f"the model returned {came}, in which no scores were found; pass the engine `output`, a function from what "
            "the model returns to its (N, K) floating scores"
        )
    return found


def _scores_in(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    if isinstance(output, list | tuple) and not hasattr(output, "_fields"):
        # A list of dicts is a detector's, a row each: the boxes of the first are no scores.
        return next((part for part in output if isinstance(part, Tensor) and part.is_floating_point()), None)
    parts = named_parts(output)
    found = (_scores_in(part) for part in [*(parts[name] for name in SCORE_NAMES if name in parts), *parts.values()])
    return next((scores for scores in found if scores is not None), None)


def named_parts(output: Any) -> Mapping[str, Any]:
    """What a dict, a named tuple or a dataclass holds, by name; of any other object, what may be its scores."""
    if isinstance(output, Mapping):
        return output
    if hasattr(output, "_fields"):
        return dict(zip(output._fields, output, strict=False))
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name, None) for field in dataclasses.fields(output)}
    return {name: part for name in SCORE_NAMES if isinstance(part := getattr(output, name, None), Tensor)}


def score_table(output: Any, rows: int, scores_of: Callable[[Any], Any] = find_scores) -> Tensor:
    """The scores (rows, K) of a raw output for so many rows; one number per row is a table of one column.

    Raises:
        TypeError: they are no floating tensor.
        ValueError: they are no table, or one of another number of rows: whose scores are whose cannot be told then.
    """
    scores = scores_of(output)
    said = "the model" if scores_of is find_scores else "`output`"
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        came = str(scores.dtype) if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"{said} returned {came} where scores are expected; give floating numbers (rows, K)")
    if scores.ndim in (0, 1) and scores.numel() == rows:
        scores = scores.reshape(rows, 1)
    refuse_other_rows(said, scores, rows)
    if scores.ndim != 2:
        raise ValueError(
            f"`target` as a class index needs (N, K) scores, and {said} returned {tuple(scores.shape)}; "
            "pass `target` as a function of the model's output that returns one number per row"
        )
    # What is computed from scores is as exact as float32 is, whatever the model computes in.
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def refuse_other_rows(said: str, found: Tensor, rows: int) -> None:
    """Raises ValueError where what `said` returned does not have an entry per row: whose is whose cannot be told."""
    if found.ndim == 0 or len(found) != rows:
        raise ValueError(
            f"{said} returned {tuple(found.shape)} for {rows} input row{'s' * (rows != 1)}, and an attribution needs "
            "one row of scores for each; pass the engine `output`, a function from what the model returns to (rows, K) "
            "scores, or explain a model that answers row by row"
        )


def checked_output(output: Callable[[Any], Tensor] | None) -> Callable[[Any], Tensor] | None:
    """The function that finds the scores in what a model returns, if it is one; None finds them by itself.

    Raises:
        TypeError: it cannot be called.
    """
    if output is not None and not callable(output):
        raise TypeError(
            f"`output` came as {type(output).__name__}; give a function from the model's output to (rows, K) scores"
        )
    return output


def probabilities(scores: Tensor) -> Tensor:
    """Softmax over classes (..., K); of one output alone, whose softmax is always 1, the sigmoid."""
    return scores.sigmoid() if scores.shape[-1] == 1 else scores.softmax(-1)


def two_classes(scores: Tensor) -> Tensor:
    """Scores (rows, K) of at least two classes: of one logit s, 0 and s, whose softmax is (1 − σ(s), σ(s))."""
    return torch.cat([torch.zeros_like(scores), scores], 1) if scores.shape[1] == 1 else scores


def refuse_beyond(name: str, index: Tensor, n_classes: int, model: str = "this model") -> None:
    """Raises ValueError where an index is not one of `n_classes`."""
    if index.numel() and int(index.max()) >= n_classes:
        fits = f"give 0 to {n_classes - 1}" if n_classes > 1 else "give 0, the one of its scores"
        raise ValueError(f"`{name}` {int(index.max())} is not a class of {model}, which has {n_classes}; {fits}")


def class_names(classes: Any) -> tuple[str, ...] | None:
    """Names of a model's outputs in normal form.

    Raises:
        TypeError: they are not a sequence of texts.
    """
    if classes is None:
        return None
    if not isinstance(classes, Sequence) or not all(isinstance(name, str) for name in classes):
        raise TypeError(
            f"`classes` came as {type(classes).__name__}; give the names of the outputs in order, a sequence of str"
        )
    return tuple(classes)


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


def entries(name: str, classes: Any) -> Tensor:
    """Class indices for a number of inputs that is not known yet: LongTensor (1,) for all of them, or (N,).

    Raises:
        TypeError, ValueError: they are no class indices.
    """
    count = len(classes) if hasattr(classes, "__len__") and getattr(classes, "ndim", 1) else 1
    return class_indices(classes, count, name)


def entries_at(name: str, values: Tensor, sample: Tensor) -> Tensor:
    """What belongs to the inputs `sample` (rows,): rows of `values` (N, ...), or of (1, ...) the same for all.

    Raises:
        ValueError: there are more inputs than entries.
    """
    if len(values) == 1:
        return values.expand(len(sample), *values.shape[1:])
    if int(sample.max()) >= len(values):
        raise ValueError(
            f"`{name}` has {len(values)} entries and there are {int(sample.max()) + 1} inputs or more; "
            "give one for all, or one per input"
        )
    return values[sample.to(values.device)]


def _as_tensor(classes: Any, name: str, fits: str) -> Tensor:
    if isinstance(classes, Tensor):
        if classes.is_floating_point() or classes.is_complex() or classes.dtype is torch.bool:
            hint = one_hot_hint(name) if classes.ndim > 1 or (classes.ndim == 1 and _one_hot(classes[None])) else ""
            raise TypeError(f"`{name}` came as {classes.dtype} {tuple(classes.shape)}; give {fits}{hint}")
        return plain(name, classes).detach().cpu().long()
    try:
        if hasattr(classes, "__index__") and not hasattr(classes, "__len__"):  # NumPy's arrays have both
            return torch.tensor(_as_int(classes))
        # What has no order of its own cannot say which input a class belongs to; bytes are numbers by accident.
        if isinstance(classes, str | bytes | bytearray | Mapping | Set):
            raise TypeError
        return torch.tensor([_as_int(value) for value in classes], dtype=torch.long)
    except (TypeError, OverflowError):
        nested = isinstance(classes, Sequence) and any(hasattr(row, "__len__") for row in classes)
        rows = not isinstance(classes, str) and (nested or getattr(classes, "ndim", 1) > 1)
        hint = one_hot_hint(name) if rows else ""
        raise TypeError(f"`{name}` came as {_shown(classes)}; give {fits}{hint}") from None


def one_hot_hint(name: str) -> str:
    """What to say of one-hot rows."""
    return f". One-hot rows are no class indices: give `{name}.argmax(1)`"


def is_one_hot(index: Tensor, n_outputs: int) -> bool:
    """Whether indices (N, K) for a model of so many outputs read as one-hot rows and not as K classes of each input.

    As classes they would name class 0 again and again. With two outputs (0, 1) is what both classes are, in order;
    (1, 0) may be either, and is refused.
    """
    if index.ndim != 2 or index.shape[1] != n_outputs or n_outputs < 2 or not _one_hot(index):
        return False
    return n_outputs > 2 or bool((index[:, 0] == 1).any())


def _one_hot(index: Tensor) -> bool:
    if index.ndim != 2 or index.device.type == "meta" or index.layout is not torch.strided:
        return False
    return bool(((index == 0) | (index == 1)).all()) and bool(((index == 1).sum(1) == 1).all())


def _as_int(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError("a truth value is not a class index")
    found = operator.index(value)
    if abs(found) >= 2**63:
        raise OverflowError("no class index is that large")
    return found


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:200]}..."
