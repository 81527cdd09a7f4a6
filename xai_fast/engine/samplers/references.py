"""What samples are compared with: the same references for every input, or one for each."""

from __future__ import annotations

from torch import Tensor

from xai_fast.core.plain import plain
from xai_fast.images.baselines import Baseline, resolve_baseline


class References:
    """The inputs that samples are compared with: the same ones for all, or one for each input.

    Args:
        baseline: a tensor (R, C, *S) is R references for every input; anything else is one baseline per input.
        inputs: (N, C, *S).
        preprocess: for baselines that are colours.

    Attributes:
        tensor: (M, C, *S), any strides.
        count: references per sample.

    Raises:
        ValueError: they do not fit the inputs.
    """

    def __init__(self, baseline: Baseline, inputs: Tensor, preprocess: object) -> None:
        self._shared = isinstance(baseline, Tensor) and baseline.ndim == inputs.ndim
        if isinstance(baseline, Tensor) and self._shared:
            if baseline.shape[1:] != inputs.shape[1:] or len(baseline) == 0:
                raise ValueError(
                    f"`baselines` of shape {tuple(baseline.shape)} do not fit inputs {tuple(inputs.shape)}; "
                    f"give (R, {', '.join(map(str, inputs.shape[1:]))}), at least one"
                )
            self.tensor = plain("baselines", baseline).detach().to(inputs)
            if not self.tensor.isfinite().all():
                raise ValueError("`baselines` hold NaN or Inf; give finite values")
        else:
            self.tensor = resolve_baseline(baseline, inputs, preprocess).expand_as(inputs)
        self.count = len(self.tensor) if self._shared else 1

    def number(self, sample: Tensor, choice: Tensor) -> Tensor:
        """The row of `tensor` that is the `choice`-th reference of inputs `sample`."""
        return choice if self._shared else sample

    def of(self, numbers: Tensor) -> Tensor:
        """The references themselves (numbers, C, *S)."""
        return self.tensor[numbers.to(self.tensor.device)]
