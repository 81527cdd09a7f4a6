"""What follows a convolution on a GPU in fewer kernels: all in cuDNN's one operator, or in one pass behind it.

torch offers cuDNN's operator for a ReLU only, without autograd, and without a word about deterministic algorithms; it
keeps to the user's precision of float32. Which of its kernels cuDNN takes depends on the sizes, and so does whether
that kernel's ReLU makes 0 of NaN. So every size is tried for itself when it comes for the second time: what computes
the same and shows NaN may run, and the clock decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from xai_fast.graph.fused.parts import NOTHING, RELU, Activation
from xai_fast.graph.fused.public import Convolution
from xai_fast.graph.processor import said
from xai_fast.graph.reasons import first_line
from xai_fast.graph.timed import decided
from xai_fast.ops import all_ops, bias_relu

from .clock import seconds

ONE, TWO, SEVERAL = "one kernel", "two kernels", "several kernels"
QUESTION = "convolution, bias, sum and ReLU"
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # cuDNN's operator knows no float64
_MOST_SIZES = 64  # of batches for which it is remembered how they run
_TRIED = 2  # when a size comes for so many times: rows that were left over come once
_WORTH_FUSING = 0.97  # of the time of several kernels
_WORSE = 2.0  # times the error to float64 of several kernels that is taken for rounding
_SLACK = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}  # of the largest value

Way = Callable[[Tensor, "Tensor | None"], Tensor]


def _free() -> bool:
    """Whether the user leaves the choice of kernels to cuDNN: its operator knows nothing of deterministic ones."""
    cudnn = torch.backends.cudnn
    return cudnn.enabled and not cudnn.deterministic and not torch.are_deterministic_algorithms_enabled()


@dataclass(eq=False, repr=False)
class JoinedConvolution(Convolution):
    """A convolution with its ReLU, and the sum before it, in one or two kernels for sizes where that was found good.

    Without padding, as regions run, kernels stay apart: regions come in too many sizes to try them all.

    Attributes:
        refused: why a kernel is not used for the last size that was tried; "" where all may be.
    """

    refused: str = ""
    _met: dict[tuple[object, ...], int | str] = field(default_factory=dict)
    _zeros: Tensor | None = None

    def forward(self, x: Tensor, activation: Activation = NOTHING, *, pads: bool = True) -> Tensor:
        """See `Convolution`."""
        if pads and activation == RELU and self._usable(x):
            return self._ways[self._way(x, None)](x, None)
        return self.plain(x, activation, pads=pads)

    def added(self, x: Tensor, other: Tensor, *, rectified: bool, consumes: bool, pads: bool = True) -> Tensor:
        """See `Convolution`."""
        if pads and rectified and self._usable(x) and self._usable(other):
            return self._ways[self._way(x, other)](x, other)
        return self.plain_added(x, other, rectified=rectified, pads=pads)

    @property
    def _ways(self) -> Mapping[str, Way]:
        return {ONE: self._joined, TWO: self._finished, SEVERAL: self._apart}

    def _joined(self, x: Tensor, other: Tensor | None) -> Tensor:
        geometry, weight = self.geometry, self.weight.detach()
        move = (geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
        if other is None:
            return torch.cudnn_convolution_relu(x, weight, self._offset, *move)
        return torch.cudnn_convolution_add_relu(x, weight, other, 1.0, self._offset, *move)

    def _finished(self, x: Tensor, other: Tensor | None) -> Tensor:
        y = self._bare(x)
        return bias_relu(y, self._offset, other, y)

    def _apart(self, x: Tensor, other: Tensor | None) -> Tensor:
        return self.plain(x, RELU) if other is None else self.plain_added(x, other, rectified=True)

    def _bare(self, x: Tensor) -> Tensor:
        geometry = self.geometry
        move = (geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
        return F.conv2d(x, self.weight.detach(), None, *move)

    @property
    def _offset(self) -> Tensor:
        """The bias, or zeros, which cuDNN's operator would make anew in every call."""
        if self.bias is not None:
            return self.bias.detach()
        if self._zeros is None:
            self._zeros = self.weight.new_zeros(len(self.weight), requires_grad=False)
        return self._zeros

    def _way(self, x: Tensor, other: Tensor | None) -> str:
        """How inputs like these run."""
        key = (*x.shape, other is None, _free(), torch.backends.cudnn.conv.fp32_precision)  # type: ignore[attr-defined]
        found = self._met.get(key, 0)
        if isinstance(found, str):
            return found
        if found + 1 < _TRIED or torch.cuda.is_current_stream_capturing():
            self._remember(key, found + 1)
            return SEVERAL
        way = self._tried(x, other)
        self._remember(key, way)
        return way

    def _remember(self, key: tuple[object, ...], found: int | str) -> None:
        self._met.pop(key, None)
        if len(self._met) >= _MOST_SIZES:
            self._met.pop(next(iter(self._met)))
        self._met[key] = found

    def _usable(self, x: Tensor) -> bool:
        same = x.is_cuda and x.dtype is self.weight.dtype and x.device == self.weight.device
        return same and x.ndim == 4 and x.numel() > 0 and not (torch.is_grad_enabled() and x.requires_grad)

    @torch.no_grad()
    def _tried(self, x: Tensor, other: Tensor | None) -> str:
        """What is right for these sizes, and the fastest of it."""
        if said().joined is False:
            return SEVERAL
        faults = {way: self._fault(self._ways[way], x, other) for way in self._possible(x, other)}
        self.refused = "; ".join(f"{way}: {fault}" for way, fault in faults.items() if fault is not None)
        sound = [way for way, fault in faults.items() if fault is None]
        if said().joined is not None:
            return sound[0] if sound else SEVERAL
        sizes = f"{len(x)} rows of {tuple(x.shape[1:])} by {tuple(self.weight.shape)}, stride {self.geometry.stride}"
        case = f"{sizes}, groups {self.geometry.groups}, {x.dtype}{', with a sum' if other is not None else ''}"
        way = decided(QUESTION, case, lambda: self._fastest(sound, x, other), lambda: SEVERAL)
        return way if way in sound else SEVERAL

    def _possible(self, x: Tensor, other: Tensor | None) -> list[str]:
        """The ways with fewer kernels that there are here."""
        cudnn = x.dtype in _DTYPES and torch.version.hip is None and torch.backends.cudnn.is_available() and _free()
        y = self._bare(x)
        behind = all_ops()["bias_relu"].compiled(y, self._offset, other, y)
        return [ONE] * cudnn + [TWO] * behind

    def _fastest(self, sound: list[str], x: Tensor, other: Tensor | None) -> str:
        times = {way: seconds(lambda way=way: self._ways[way](x, other), x.device) for way in [*sound, SEVERAL]}
        best = min(times, key=times.__getitem__)
        return best if times[best] < _WORTH_FUSING * times[SEVERAL] else SEVERAL

    def _fault(self, way: Way, x: Tensor, other: Tensor | None) -> str | None:
        """Why what runs for these sizes is not used; None where it does what several kernels do."""
        blank = torch.full_like(x, float("nan"))
        try:
            found, apart = way(x, other), self._apart(x, other)
            if found.shape != apart.shape or not self._near(found, apart, x, other):
                return "it gives other numbers"
            shown = [(blank, other)] if other is None else [(blank, other), (x, torch.full_like(other, float("nan")))]
            if not all(torch.equal(way(*pair).isnan(), self._apart(*pair).isnan()) for pair in shown):
                return "its ReLU hides NaN"
        except Exception as error:  # cuDNN may have no kernel for what its description allows
            return f"it fails ({first_line(error)})"
        return None

    def _near(self, found: Tensor, apart: Tensor, x: Tensor, other: Tensor | None) -> bool:
        """Whether its error to float64 is no more than that of several kernels, looked at in the first row."""
        wide = Convolution(self.weight.detach().double(), self._offset.double(), self.geometry)
        row = x[:1].double()
        truth = wide.plain(row, RELU) if other is None else wide.plain_added(row, other[:1].double(), rectified=True)
        largest = truth.abs().max()
        if not largest.isfinite():
            return False  # nothing is told from it
        mine, theirs = ((one[:1].double() - truth).abs().max() for one in (found, apart))
        return bool(mine <= _WORSE * theirs + _SLACK[x.dtype] * largest)
