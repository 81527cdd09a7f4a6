"""Which inputs the model answered NaN or Inf: counted where the answers are, and read once."""

from __future__ import annotations

import torch
from torch import Tensor


class NonFiniteError(FloatingPointError):
    """The model answered NaN or Inf.

    Attributes:
        samples: the inputs concerned, by their position in the batch.
        values: the maps of the whole batch as they would have been returned, NaN for those inputs: what could be
            computed is not lost. (N, 1) of NaN where no clean input had a finite score, because no variant ran then.
    """

    def __init__(self, samples: list[int], values: Tensor) -> None:
        named = ", ".join(map(str, samples[:8])) + (", ..." if len(samples) > 8 else "")
        plural = "s" if len(samples) > 1 else ""
        super().__init__(
            f"the model answered NaN or Inf for sample{plural} {named} of the batch; look at its outputs there "
            "(an overflow in half precision, a division by zero, an untrained layer). "
            "The maps of the other samples are in this error's `values`."
        )
        self.samples = samples
        self.values = values


class Finite:
    """Counts, for each of N inputs, the answers that hold NaN or Inf.

    Args:
        count: N.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._unsound: Tensor | None = None

    def note(self, sample: Tensor, finite: Tensor) -> None:
        """Takes which answers (rows,) about the inputs `sample` (rows,) are finite."""
        if self._unsound is None:
            self._unsound = torch.zeros(self._count, dtype=torch.long, device=finite.device)
        self._unsound.index_add_(0, sample.to(finite.device), (~finite).long())

    def broken(self, values: Tensor | None = None) -> list[int]:
        """The inputs concerned, and those whose maps in `values` (N, ...) are not finite; this is what reads.

        Finite answers may add up to none: opposite infinities, or more than the dtype of the inputs holds.
        """
        assert self._unsound is not None
        found = self._unsound > 0
        if values is not None:
            whole = torch.stack([of_sample.isfinite().all() for of_sample in values])
            found = found.to(whole.device) | ~whole
        return found.cpu().nonzero()[:, 0].tolist()

    def refuse_if_all(self) -> None:
        """Raises NonFiniteError where no input has finite answers alone."""
        if len(broken := self.broken()) == self._count:
            raise NonFiniteError(broken, torch.full((self._count, 1), float("nan")))
