"""Where the scores are in what a model returns, and which of them are meant."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .plain import plain

Classes = int | Sequence[int] | Tensor | None


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
            raise TypeError(f"`{name}` came as {classes.dtype}; give {fits}")
        return plain(name, classes).detach().cpu().long()
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
