"""What a ReLU lets through on the way back: its gradient, or the rules of guided backpropagation and deconvnets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from xai_fast.ops import all_ops, pass_bits, sign_bits

Rule = Literal["gradient", "guided", "deconvolution"]
RULES: tuple[str, ...] = get_args(Rule)
_MASKED = (torch.float32, torch.bfloat16)  # what there is a kernel for
_IN_PLACE = (torch.relu_, Tensor.relu_)
_OUT_OF_PLACE = (torch.relu, Tensor.relu)


class Mask:
    """Where a ReLU let its input through: its output need not be kept, nor read again.

    In a bit per element where there is a kernel for that, else in a byte.

    Args:
        output: of the ReLU, float32 or bfloat16, dense.
    """

    __slots__ = ("_bits", "_blocked", "_shape", "_strides")

    def __init__(self, output: Tensor) -> None:
        packed = all_ops()["sign_bits"].compiled(output)
        self._bits = sign_bits(output) if packed else None
        self._blocked = None if packed else output <= 0
        self._shape, self._strides = output.shape, output.stride()

    @staticmethod
    def of(output: Tensor) -> Mask | Tensor:
        """The mask of what a ReLU returned; the output itself where its memory does not allow one."""
        dense = output.is_contiguous() or (output.ndim == 4 and output.is_contiguous(memory_format=torch.channels_last))
        return Mask(output) if dense and output.dtype in _MASKED and output.is_cpu else output

    def stride(self) -> tuple[int, ...]:
        """Of the output."""
        return self._strides

    def empty(self, like: Tensor) -> Tensor:
        """Memory laid out as the output was."""
        return torch.empty_strided(self._shape, self._strides, dtype=like.dtype, device=like.device)

    def __call__(self, gradient: Tensor, to: Tensor) -> Tensor:
        """The gradient where the ReLU let through, zero elsewhere, written to `to`, which may be the gradient."""
        if self._bits is None:
            assert self._blocked is not None
            return torch.where(self._blocked, torch.zeros((), dtype=gradient.dtype), gradient, out=to)
        if gradient.stride() != self._strides:
            gradient = to.copy_(gradient)
        return pass_bits(gradient, self._bits, to)


def passed(gradient: Tensor, output: Mask | Tensor, rule: str, to: Tensor) -> Tensor:
    """What a ReLU passes back of the gradient at its output.

    Args:
        gradient: (rows, ...) by the output.
        output: of the ReLU, of the same shape, or its mask.
        rule: "gradient": where the output is positive; "guided" (Springenberg et al. 2014): of that, what is positive
            itself; "deconvolution" (Zeiler and Fergus 2014): what is positive itself, wherever it is.
        to: where it is written and returned; may be the gradient.
    """
    if rule != "gradient":
        gradient = torch.clamp(gradient, min=0, out=to)
    if rule == "deconvolution":
        return gradient
    if isinstance(output, Mask):
        return output(gradient, to)
    return torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=to)


class Rectified(TorchFunctionMode):
    """Replaces every ReLU that runs inside by one with a rule for the backward.

    Args:
        rule: see `passed`.

    Attributes:
        met: how many ReLUs have run.
    """

    def __init__(self, rule: str) -> None:
        super().__init__()
        self._rule, self.met = rule, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Every call of torch's while this is active."""
        given = kwargs or {}
        if func is F.relu:
            x, in_place = _relu_arguments(*args, **given)
        elif func in _IN_PLACE or func in _OUT_OF_PLACE:
            (x,), in_place = args or tuple(given.values()), func in _IN_PLACE
        else:
            return func(*args, **given)
        self.met += 1
        return _Rectifier.apply(x, self._rule, in_place)


@contextmanager
def rectified(rule: Rule) -> Iterator[Rectified]:
    """Every ReLU that a forward runs inside (module, function, method, in place or not) passes gradients by the rule.

    For models that cannot be captured: their own forward runs inside, under autograd. What compiled or scripted code
    does is not seen. `met` of what comes back counts the ReLUs.
    """
    with Rectified(rule) as mode:
        yield mode


def _relu_arguments(input: Tensor, inplace: bool = False) -> tuple[Tensor, bool]:
    return input, inplace


class _Rectifier(torch.autograd.Function):
    """A ReLU with a rule for its backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: str, in_place: bool) -> Tensor:
        if in_place:
            ctx.mark_dirty(x)
        y = x.relu_() if in_place else x.relu()
        ctx.rule = rule
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        return passed(gradients[0], y, ctx.rule, torch.empty_like(y)), None, None
