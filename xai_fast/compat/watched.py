"""One row of a model watched: what it returned, and which operations ran outside of the modules that captum knows.

A dispatch mode sees the operations of its own thread alone, and leaves no hook behind.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from .calls import Uncovered

# What captum's DeepLIFT has a rule for, and what passes a difference on as it is.
_RULED = (nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_LINEAR = """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _native_batch_norm_legit_no_training _to_copy _unsafe_view add add_
    addmm alias as_strided avg_pool1d avg_pool2d avg_pool3d cat clone constant_pad_nd contiguous convolution
    cudnn_batch_norm cudnn_convolution detach empty empty_like expand flip full mean miopen_convolution
    mkldnn_convolution mm native_batch_norm permute reshape select slice split squeeze stack sub sum t transpose
    unbind unsqueeze view zeros zeros_like
"""
LINEAR = frozenset(_LINEAR.split())
_RECTIFIERS = frozenset(("relu", "relu_", "clamp", "clamp_", "clamp_min", "clamp_min_"))
_FRAMES = 24  # between an operation and the module that asked for it, at the most


@dataclass(frozen=True)
class Answer:
    """What a model did with one row.

    Attributes:
        shape: of its output, without the rows.
        dtype: of its output.
        rectifies_outside: whether a ReLU ran, or what is like one, that is no `nn.ReLU`.
        rescaled: whether captum's DeepLIFT sees every operation that is not linear, each in a module that runs once.
        layer: the shape, without the rows, of what the layer in question returned in each of its calls; None for what
            is no tensor.
        overwritten: whether something later wrote into what the layer returned, as `nn.ReLU(inplace=True)` does.
        replaced: whether a hook put something else in the place of what the layer returned.
        operations: how many ran.
        flops: floating-point operations in them, of matrix products, convolutions and attention.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    rectifies_outside: bool
    rescaled: bool
    layer: tuple[tuple[int, ...] | None, ...] = ()
    overwritten: bool = False
    replaced: bool = False
    operations: int = 0
    flops: int = 0

    @property
    def layer_shape(self) -> tuple[int, ...]:
        """Of the layer's one tensor."""
        (shape,) = self.layer
        assert shape is not None
        return shape


def watched(forward: Any, row: Tensor, layer: nn.Module | None = None) -> Answer:
    """Runs one row (1, C, *S) and says what happened.

    Raises:
        Uncovered: the output is no tensor with an entry per row, or random numbers were drawn.
    """
    look = _Look()
    before = torch.get_rng_state()
    handles = look.put_in(layer) if layer is not None else []
    try:
        with torch.no_grad(), _Operations() as seen:
            output = forward(row.clone())
    finally:
        for handle in handles:
            handle.remove()
    if seen.random and not torch.equal(before, torch.get_rng_state()):
        torch.set_rng_state(before)
        raise Uncovered("the model draws random numbers")
    if type(output) is not Tensor:
        raise Uncovered(f"the model returns {type(output).__name__}, not a tensor")
    per_row = output.ndim > 0 and len(output) == 1
    if not per_row and output.numel() != 1:
        raise Uncovered("the model's output has no entry per row")
    shape = tuple(output.shape[1:]) if per_row else ()
    return Answer(
        shape,
        output.dtype,
        seen.rectifies_outside,
        seen.rescaled,
        tuple(look.shapes),
        look.overwritten,
        look.replaced,
        seen.operations,
        seen.flops,
    )


class _Look:
    """At what a layer returns, before the first hook and behind the last one, in the thread that made it."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...] | None] = []
        self.replaced = False
        self._thread = threading.get_ident()
        self._first: Any = None
        self._returned: list[tuple[Tensor, int]] = []

    def put_in(self, layer: nn.Module) -> list[Any]:
        """The handles of its hooks."""
        return [layer.register_forward_hook(self._begin, prepend=True), layer.register_forward_hook(self._end)]

    @property
    def overwritten(self) -> bool:
        """Whether something wrote into it since."""
        return any(part._version != version for part, version in self._returned)

    def _begin(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if threading.get_ident() == self._thread:
            self._first = output

    def _end(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if threading.get_ident() == self._thread:
            self._returned.extend((part, part._version) for part in _parts(output))
            self.shapes.append(tuple(output.shape[1:]) if isinstance(output, Tensor) and output.ndim else None)
            self.replaced = self.replaced or output is not self._first


class _Operations(TorchDispatchMode):
    """Takes note of what runs, and of the module that asked for what is not linear."""

    def __init__(self) -> None:
        super().__init__()
        self.random = self.rectifies_outside = self._unruled = False
        self.operations = self.flops = 0
        self._runs: Counter[int] = Counter()
        self._ruled: list[Tensor] = []  # what modules with a rule read and returned

    @property
    def rescaled(self) -> bool:
        """Whether every operation that is not linear ran in a module with a rule, and each of these once."""
        return not self._unruled and all(count == 1 for count in self._runs.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.random = self.random or torch.Tag.nondeterministic_seeded in func.tags
        output = func(*args, **(kwargs or {}))
        self.operations += 1
        if (counts := flop_registry.get(func.overloadpacket)) is not None:
            self.flops += int(counts(*args, **(kwargs or {}), out_val=output))
        if name in LINEAR:
            return output
        module = _asking(sys._getframe(1))
        if name in _RECTIFIERS and not isinstance(module, nn.ReLU):
            self.rectifies_outside = True
        self._take(module, args, output)
        return output

    def _take(self, module: nn.Module | None, args: Any, output: Any) -> None:
        """One more operation that is not linear.

        Captum hooks tensors, so modules with a rule that hand each other the same one disturb each other.
        """
        read = [arg for arg in args if isinstance(arg, Tensor)]
        shared = any(arg is ruled for arg in read for ruled in self._ruled)
        if module is None or shared:
            self._unruled = True
            return
        self._runs[id(module)] += 1
        self._ruled += [*read, *(part for part in _parts(output) if all(part is not one for one in read))]


def _parts(output: Any) -> list[Tensor]:
    return [part for part in (output if isinstance(output, tuple) else (output,)) if isinstance(part, Tensor)]


def _asking(frame: Any) -> nn.Module | None:
    """The module with a rule in whose forward an operation runs."""
    for _ in range(_FRAMES):
        if frame is None:
            return None
        module = frame.f_locals.get("self") if frame.f_code.co_name == "forward" else None
        if isinstance(module, _RULED) and type(module).forward.__code__ is frame.f_code:
            return module
        if isinstance(module, nn.Module):
            return None
        frame = frame.f_back
    return None
