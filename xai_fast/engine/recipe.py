"""What a method hands to the loop: which variants, what the model is asked about each, what map the answers make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from xai_fast.core.layers import Reading

from .evaluate import Answers, Evaluate, Score
from .samplers.layer import LayerChange


@dataclass(frozen=True)
class Cost:
    """Model rows of one call: rows run forward, and rows run backward."""

    forwards: int
    backwards: int = 0

    def __mul__(self, times: int) -> Cost:
        return Cost(self.forwards * times, self.backwards * times)


class Variants(Protocol):
    """R rows, each a variant of one of the N inputs, described and written straight into a batch on demand.

    Row r belongs to input `sample_of(r)`. Rows may be asked for in any order and any chunking.
    """

    change: ClassVar[str]
    """What differs from the clean input: "boxes", "everything" or "nothing".

    Variants that differ inside boxes also have `spans` and `patch`; see `replay.local.local.Boxed`.
    """

    def __len__(self) -> int: ...

    def sample_of(self, rows: Tensor) -> Tensor:
        """The input (rows,) that each of `rows` is a variant of; LongTensors on the CPU."""
        ...

    def unchanged(self) -> Tensor:
        """BoolTensor (R,): which rows are known to equal their input, so that nobody needs to ask about them."""
        ...

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Writes the variants `rows` into `out` (rows, C, *S), in its dtype, device and memory layout."""
        ...


class Reducer(Protocol):
    """Folds answers into maps as they come; nothing it keeps grows with the number of rows beyond their scores."""

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """Takes the answers of the clean inputs `sample` (rows,); comes before any `update`."""
        ...

    def update(self, rows: Tensor, answers: Answers) -> None:
        """Takes the answers of variants `rows` (rows,)."""
        ...

    def finish(self) -> Tensor:
        """The maps (N, K, ...)."""
        ...


@runtime_checkable
class Detailed(Protocol):
    """A reducer that knows more than the map."""

    def details(self, scores: Tensor) -> Details:
        """What belongs to the maps, once `finish` has been called; `scores` (N, K) are of the clean inputs."""
        ...


@dataclass(frozen=True)
class Details:
    """What belongs to maps (N, K, ...).

    Attributes:
        gap: (N, K) the sum of each map minus what it should sum to.
        fit: (N, K) how much of the scores' weighted variance a surrogate explains.
        standard_error: (N, K, ...) of the maps.
        snapshots: maps (N, K, ...) as they were after that many draws.
    """

    gap: Tensor | None = None
    fit: Tensor | None = None
    standard_error: Tensor | None = None
    snapshots: Mapping[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """Rows that are asked about after others.

    Attributes:
        variants: which.
        evaluate: what is asked.
        take: who takes the answers: (rows, answers).
    """

    variants: Variants
    evaluate: Evaluate
    take: Callable[[Tensor, Answers], None]


@dataclass(frozen=True)
class Recipe:
    """A method for one call, as data.

    Attributes:
        reduce: what map the answers make.
        clean: what is asked about the clean inputs, which run first and settle `target=None`.
        variants: which other rows are run; None where the clean inputs are all there is.
        evaluate: what is asked about each variant.
        levels: which rows of the variants are asked about, where the answers to some decide whether more are needed;
            None asks about all at once.
        change: how each layer's output is changed for every row that runs, clean and variant alike; each change is
            one more row. None where layers are only looked at.
        readings: how what each layer returns is a grid, where layers are changed.
        unfolded: names of layers across which nothing is folded, beside those that are looked at.
        then: after the variants it is called again and again, and what it returns is swept, until it returns None;
            given the clean scores (N, K).
        afterwards: rows that `then` asks for in all, one forward each; None where that is not known beforehand.
    """

    reduce: Reducer
    clean: Evaluate = field(default_factory=Score)
    variants: Variants | None = None
    evaluate: Evaluate = field(default_factory=Score)
    levels: Callable[[], Iterable[Tensor]] | None = None
    change: LayerChange | None = None
    readings: Mapping[str, Reading] = field(default_factory=dict)
    unfolded: tuple[str, ...] = ()
    then: Callable[[Tensor], Sweep | None] | None = None
    afterwards: int | None = None

    def rows(self) -> Iterable[Tensor]:
        """Rows (rows,) of the variants to ask about, one after the other; the answers are awaited in between."""
        if self.variants is None:
            return ()
        return (torch.arange(len(self.variants)),) if self.levels is None else self.levels()

    @property
    def takes_gradients(self) -> bool:
        """Whether any question runs the model backward."""
        return self.clean.backwards > 0 or self.evaluate.backwards > 0

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are looked at; folding does not cross them."""
        return tuple(dict.fromkeys((*self.clean.layers, *self.evaluate.layers)))
