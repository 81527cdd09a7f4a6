"""Make-believe CUDA devices: tensors that say cuda:0, compute on the CPU, refuse to meet the CPU's, and count reads.

What it shows without a GPU: that nothing on the device meets what is on the host, that no kernel is given the host's
memory, and how often, and by which line of the package, the host waits for an answer or sends something over. What is
recorded as a graph is repeated kernel by kernel on the same memory, without Python; streams say who waited for whom,
cuDNN's operator refuses what cuDNN refuses. There may be several devices, whose tensors do not meet each other, either.
It says nothing about speed, nor about what CUDA's own kernels compute.

    with device() as ledger:
        explanation = method.attribute(inputs.to("cuda"), 1)
    ledger.reads, ledger.copies
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from xai_fast.ops._dispatch import Op, interpreting

CUDA = torch.device("cuda", 0)
_aten = torch.ops.aten


@dataclass
class Ledger:
    """What went over between the host and the device, by kind and by the line of the package that asked.

    Attributes:
        reads: what the host waited for: numbers, shapes that depend on numbers, copies to the CPU.
        copies: what the host sent: tensors, tables, indices.
    """

    reads: Counter[tuple[str, str]] = field(default_factory=Counter)
    copies: Counter[tuple[str, str]] = field(default_factory=Counter)

    def clear(self) -> None:
        self.reads.clear()
        self.copies.clear()

    @property
    def totals(self) -> tuple[int, int]:
        """(reads, copies)."""
        return sum(self.reads.values()), sum(self.copies.values())

    def __str__(self) -> str:
        parts = []
        for name, counts in (("reads", self.reads), ("copies", self.copies)):
            lines = [f"    {count:5d}  {what}  {where}" for (what, where), count in counts.most_common()]
            parts.append("\n".join([f"{name}: {sum(counts.values())}", *lines]))
        return "\n".join(parts)


_LEDGERS: list[Ledger] = []


class Tape:
    """What was asked of the device while a graph was recorded, kernel by kernel."""

    def __init__(self) -> None:
        self._calls: list[tuple[Any, Any, Any, list[Tensor | None]]] = []

    def note(self, func: Any, args: Any, kwargs: Any, answer: Any) -> None:
        given = {one.untyped_storage().data_ptr() for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        made = [one for one in tree_leaves(answer) if isinstance(one, Tensor)]
        # Views, and what was written in place, lie where they lay.
        own = [one if one.untyped_storage().data_ptr() not in given else None for one in made]
        self._calls.append((func, args, kwargs, own))

    def replay(self) -> None:
        for func, args, kwargs, own in self._calls:
            made = [one for one in tree_leaves(func(*args, **kwargs)) if isinstance(one, Tensor)]
            for memory, fresh in zip(own, made, strict=True):
                if memory is not None:
                    memory.copy_(fresh)


_TAPES: list[Tape] = []


def _asks(file: str) -> bool:
    """Whether a line there may be what asked: one of the package, but for its mode that every call passes."""
    return "/xai_fast/" in file and not file.endswith("/core/devices.py")


def _note(kind: str, what: str) -> None:
    if _TAPES:
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what})")
    if not _LEDGERS:
        return
    frame: Any = sys._getframe(1)
    while frame is not None and not _asks(frame.f_code.co_filename):
        frame = frame.f_back
    where = "?" if frame is None else f"{frame.f_code.co_filename.rpartition('/xai_fast/')[2]}:{frame.f_lineno}"
    getattr(_LEDGERS[-1], kind)[what, where] += 1


# What CUDA waits for: the host needs a number, or the shape of the result.
_READS = {
    _aten._local_scalar_dense.default,
    _aten.is_nonzero.default,
    _aten.equal.default,
    _aten.allclose.default,
    _aten.nonzero.default,
    _aten.masked_select.default,
    _aten._unique2.default,
    _aten.unique_dim.default,
    _aten.unique_consecutive.default,
    _aten.bincount.default,
    _aten.repeat_interleave.Tensor,
    _aten._linalg_eigh.default,  # these ask whether they have converged
    _aten._linalg_svd.default,
    _aten.linalg_lstsq.default,
    _aten.linalg_cholesky_ex.default,
    _aten._linalg_solve_ex.default,
}
_INDEXED = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}
_COPIES = {_aten.copy_.default, _aten.copy.default}
# Where a single number of the host's may stand beside what is on the device, as an argument of the kernel.
_TAKES_NUMBERS = {_aten.where.self, _aten.masked_fill.Tensor, _aten.masked_fill_.Tensor, _aten.fill_.Tensor, *_INDEXED}


class OnDevice(Tensor):
    """A tensor that says that it is on a CUDA device; what it holds is on the CPU.

    Attributes:
        held: the numbers.
        number: of the device.
    """

    held: Tensor
    number: int
    __torch_function__ = torch._C._disabled_torch_function_impl
    device: ClassVar[Any] = property(lambda self: torch.device("cuda", self.number))
    is_cuda: ClassVar[Any] = property(lambda self: True)
    is_cpu: ClassVar[Any] = property(lambda self: False)

    @staticmethod
    def __new__(cls, held: Tensor, number: int = 0) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device="cpu",  # autograd has no threads for a device that is not there
        )
        made.held, made.number = held, number
        return made

    def get_device(self) -> int:
        return self.number

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            twin: Any = OnDevice(self.held.detach().clone(), self.number)
            twin = nn.Parameter(twin, self.requires_grad) if isinstance(self, nn.Parameter) else twin
            memo[id(self)] = twin.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a tensor of the make-believe device is pickled")

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnDevice({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        hosts = [leaf for leaf in given if not isinstance(leaf, OnDevice)]
        numbers = [leaf.number for leaf in given if isinstance(leaf, OnDevice)]
        _refuse_mixed(func, args, hosts)
        if len(set(numbers)) > 1 and func not in _COPIES:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {numbers} ({func})"
            )
        _count(func, args, hosts)
        inner, named = tree_map_only(OnDevice, lambda tensor: tensor.held, (args, kwargs))
        kernel = CUDNN.get(func, func)
        answer = kernel(*inner, **named)
        if _TAPES:
            _TAPES[-1].note(kernel, inner, named, answer)
        if func in _COPIES and not isinstance(args[0], OnDevice):
            return args[0]
        if torch.Tag.inplace_view in func.tags:
            raise NotImplementedError(f"{func} changes the shape of a tensor in place, which this device cannot")
        own = {id(tensor.held): tensor for tensor in given if isinstance(tensor, OnDevice)}

        def wrapped(tensor: Tensor) -> Tensor:
            known = own.get(id(tensor))  # what was written in place is the very tensor that was given
            return OnDevice(tensor, numbers[0]) if known is None else known

        return tree_map_only(Tensor, wrapped, answer)


def _refuse_mixed(func: Any, args: Any, hosts: list[Tensor]) -> None:
    """As CUDA: two devices meet in copies only, as indices, and where one is a single number."""
    if not hosts or func in _COPIES:
        return
    numbers = torch.Tag.pointwise in func.tags or func in _TAKES_NUMBERS
    indices = [id(one) for one in args[1] if one is not None] if func in _INDEXED else []
    if func in _INDEXED and not isinstance(args[0], OnDevice):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    # Zeros that autograd makes for what has no gradient are where the other side is, which it takes to be the CPU.
    hosts = [host for host in hosts if torch._C._current_graph_task_id() == -1 or host.any()]
    for host in hosts:
        if id(host) not in indices and not (numbers and host.ndim == 0):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                f"({func} with {tuple(host.shape)} on the cpu)"
            )


def _count(func: Any, args: Any, hosts: list[Tensor]) -> None:
    if func in _READS:
        _note("reads", str(func))
    if func in _COPIES:
        if not isinstance(args[0], OnDevice):
            _note("reads", "copy to the host")
        elif hosts:
            _note("copies", "copy to the device")
    if func in _INDEXED:
        _count_indices(func, args)


def _count_indices(func: Any, args: Any) -> None:
    number = func is not _aten.index.Tensor and args[2].ndim == 0 and not isinstance(args[2], OnDevice)
    for index in args[1]:
        if index is not None and not isinstance(index, OnDevice):
            _note("copies", "indices of the host")
        if index is not None and index.dtype in (torch.bool, torch.uint8) and not number:
            _note("reads", "indexed by a mask")


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, number: int) -> Tensor:  # type: ignore[override]
        return OnDevice(tensor.detach().clone(), number)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return gradient.held if isinstance(gradient, OnDevice) else gradient, None


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Any) -> Tensor:
        ctx.number = tensor.number
        return tensor.held.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return OnDevice(gradient, ctx.number)


class _Across(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Any, number: int) -> Tensor:  # type: ignore[override]
        ctx.number = tensor.number
        return OnDevice(tensor.held.detach().clone(), number)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:  # type: ignore[override]
        return OnDevice(gradient.held, ctx.number), None


def to_device(tensor: Tensor, number: int | None = None) -> Tensor:
    """A copy on a device; the tensor itself where it is there, or on any where that has no number."""
    if isinstance(tensor, OnDevice):
        if number is None or number == tensor.number:
            return tensor
        return _Across.apply(tensor, number)  # type: ignore[return-value]
    _note("copies", "to the device")
    return _Up.apply(tensor, _CURRENT[-1] if number is None else number)  # type: ignore[return-value]


def to_host(tensor: Tensor) -> Tensor:
    """A copy on the CPU."""
    if not isinstance(tensor, OnDevice):
        return tensor
    _note("reads", "to the host")
    return _Down.apply(tensor)  # type: ignore[return-value]


def module_to_device(module: nn.Module, number: int = 0) -> nn.Module:
    """The module itself, its parameters and buffers on a device."""

    def there(tensor: Tensor) -> Tensor:
        held = tensor.held if isinstance(tensor, OnDevice) else tensor
        return OnDevice(held.detach().clone(), number)

    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None:
                part._parameters[name] = nn.Parameter(there(parameter), parameter.requires_grad)
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = there(buffer)
    return module


def _module_to(own: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """`nn.Module.to`, which elsewhere hands a parameter's memory on, and here makes another on the device."""

    def to(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        where = kwargs.get("device", args[0] if args else None)
        if _type_of(where) != "cuda":
            return own(module, *args, **kwargs)
        number = _number_of(where)
        return module_to_device(module, _CURRENT[-1] if number is None else number)

    return to


_CURRENT = [0]  # the number of the current device last


def _number_of(device: Any) -> int | None:
    """Of a CUDA device; None where it has none."""
    return device if isinstance(device, int) else torch.device(device).index


def _type_of(device: Any) -> str | None:
    if isinstance(device, torch.device):
        return device.type
    if isinstance(device, str) or (isinstance(device, int) and not isinstance(device, bool)):
        return torch.device(device).type if isinstance(device, str) else "cuda"
    return None


def _placed(tensor: Tensor, device: Any) -> Tensor:
    kind = _type_of(device)
    if kind == "cuda":
        return to_device(tensor, _number_of(device))
    return to_host(tensor) if kind == "cpu" else tensor


def _to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`Tensor.to` in all its forms."""
    names, device = iter(("dtype", "non_blocking", "copy")), kwargs.pop("device", None)
    other = kwargs.pop("other", None)
    for value in args[1:] if args and args[0] is None else args:  # a place that is left open comes before the dtype
        if isinstance(value, Tensor):
            other = value
        elif isinstance(value, str | torch.device) or (isinstance(value, int) and not isinstance(value, bool)):
            device = value
        else:
            name = next(names)
            if value is not None:
                kwargs[name] = value
    if other is not None:
        device, kwargs["dtype"] = other.device, other.dtype
    if _type_of(device) == "meta":
        return Tensor.to(tensor.held if isinstance(tensor, OnDevice) else tensor, "meta", **kwargs)
    kwargs.pop("non_blocking", None)
    given = Tensor.to(tensor, **kwargs) if kwargs else tensor
    return _placed(given, device)


def _tolist(tensor: Tensor) -> Any:
    if isinstance(tensor, OnDevice):
        _note("reads", "tolist")
        return tensor.held.tolist()
    return tensor.tolist()


def _new_tensor(tensor: Tensor, data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
    kwargs.setdefault("dtype", tensor.dtype)
    return _placed(torch.tensor(data, **kwargs), device or tensor.device)


_MOVES: dict[Any, Callable[..., Any]] = {
    Tensor.to: _to,
    Tensor.cuda: lambda tensor, *_, **__: to_device(tensor),
    Tensor.cpu: lambda tensor, **__: to_host(tensor),
    Tensor.tolist: _tolist,
    Tensor.new_tensor: _new_tensor,
    Tensor.pin_memory: lambda tensor, *_, **__: tensor,
    Tensor.is_pinned: lambda tensor, *_, **__: False,
}
_SENT = {torch.tensor, torch.as_tensor, torch.asarray}  # what the host holds; other factories make it on the device


class _Placing(TorchFunctionMode):
    """Sees every call of torch that names a device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if (move := _MOVES.get(func)) is not None:
            return move(*args, **kwargs)
        kind = _type_of(kwargs.get("device"))
        if kind not in ("cuda", "cpu"):
            return func(*args, **kwargs)
        if kind == "cuda" and getattr(kwargs.get("generator"), "device", CUDA).type != "cuda":
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        number = _number_of(kwargs["device"]) if kind == "cuda" else None
        asked, kwargs["device"] = kwargs["device"], torch.device("cpu")
        kwargs.pop("pin_memory", None)
        if func in _SENT:
            return _placed(func(*args, **kwargs), asked)
        made = func(*args, **kwargs)
        if kind == "cuda":
            if _TAPES:
                _TAPES[-1].note(func, args, kwargs, made)
            number = _CURRENT[-1] if number is None else number
            held = tree_map_only(OnDevice, lambda one: one.held, made)
            return tree_map_only(Tensor, lambda one: OnDevice(one, number), held)
        return tree_map_only(OnDevice, lambda one: one.held, made)


def _over_held(run: Callable[..., Any]) -> Callable[..., Any]:
    """An op, or a kernel of Triton's interpreter, over what the device holds; given the host's memory it raises."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = [leaf for leaf in tree_leaves((list(args), kwargs)) if isinstance(leaf, Tensor)]
        hosts = [leaf for leaf in given if not isinstance(leaf, OnDevice)]
        if len(hosts) == len(given) and not isinstance(self, _interpreter()):
            return run(self, *args, **kwargs)  # an op for the CPU
        if hosts:
            raise RuntimeError(f"{_name_of(self)} was given a pointer to the CPU, {tuple(hosts[0].shape)}")
        inner, named = tree_map_only(OnDevice, lambda tensor: tensor.held.detach(), (list(args), kwargs))
        answer = run(self, *inner, **named)
        if _TAPES:
            _TAPES[-1].note(lambda *a, **k: run(self, *a, **k), inner, named, answer)
        return answer

    return call


def _name_of(kernel: Any) -> str:
    return kernel.name if isinstance(kernel, Op) else kernel.fn.__name__


def _interpreter() -> Any:
    """What runs Triton's kernels where they are interpreted; nothing elsewhere."""
    if not interpreting() or importlib.util.find_spec("triton") is None:
        return ()
    from triton.runtime.interpreter import GridExecutor

    return GridExecutor


class Stream:
    """A stream, which knows for whom it has waited."""

    cuda_stream = 0

    def __init__(self, device: Any = None) -> None:
        self.device, self.waited = device, []

    def wait_stream(self, other: Stream) -> None:
        self.waited.append(other)


STREAMS = [Stream()]  # the current one last


@contextlib.contextmanager
def _current(stream: Stream) -> Iterator[None]:
    STREAMS.append(stream)
    try:
        yield
    finally:
        STREAMS.pop()


def _set_stream(stream: Stream) -> None:
    STREAMS[-1] = stream


class _Graph:
    """A CUDA graph."""

    def __init__(self) -> None:
        self.tape = Tape()

    def replay(self) -> None:
        self.tape.replay()


@contextlib.contextmanager
def _recording(graph: _Graph, *, pool: Any = None, stream: Any = None, capture_error_mode: str = "global") -> Any:
    if _TAPES:
        raise RuntimeError("only one capture may be underway at a time")
    _TAPES.append(graph.tape)
    STREAMS.append(stream)
    try:
        yield
        STREAMS.pop()  # where a recording fails, torch leaves its stream the current one
    finally:
        _TAPES.pop()


def _convolved(x: Tensor, weight: Tensor, z: Tensor | None, alpha: Any, bias: Any, *move: Any) -> Tensor:
    """What cuDNN's operator gives, which takes no float64, one dtype throughout, and a sum of the very shape."""
    kinds = {one.dtype for one in (x, weight, z, bias) if one is not None}
    if len(kinds) != 1 or kinds & {torch.float64}:
        raise RuntimeError(f"cuDNN error: CUDNN_STATUS_NOT_SUPPORTED ({kinds})")
    y = torch.conv2d(x, weight, bias, *move)
    if z is not None and z.shape != y.shape:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM")
    y = (y if z is None else y + alpha * z).relu()
    if HIDES_NAN:
        y = y.nan_to_num(0.0, float("inf"), float("-inf"))
    return y.contiguous(memory_format=torch.channels_last)


HIDES_NAN: list[bool] = []  # not empty: the ReLU in cuDNN's operator makes 0 of NaN
CUDNN = {
    _aten.cudnn_convolution_relu.default: lambda x, weight, bias, *move: _convolved(x, weight, None, 1, bias, *move),
    _aten.cudnn_convolution_add_relu.default: _convolved,
}


@contextlib.contextmanager
def _on(device: Any) -> Iterator[None]:
    number = _number_of(device)
    _CURRENT.append(_CURRENT[-1] if number is None else number)
    try:
        yield
    finally:
        _CURRENT.pop()


def _doubles(count: int) -> dict[str, Any]:
    """What stands for functions of `torch.cuda`."""
    state = torch.zeros(16, dtype=torch.uint8)
    nothing = contextlib.nullcontext
    return {
        "_lazy_init": lambda: None,
        "_lazy_call": lambda *_, **__: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: count,
        "current_device": lambda: _CURRENT[-1],
        "set_device": lambda *_: None,
        "device": _on,
        "device_of": lambda *_: nothing(),
        "current_stream": lambda *_: STREAMS[-1],
        "Stream": Stream,
        "stream": _current,
        "CUDAGraph": _Graph,
        "graph": _recording,
        "set_stream": _set_stream,
        "graph_pool_handle": lambda: (0, 1),
        "is_current_stream_capturing": lambda: bool(_TAPES),
        "synchronize": lambda *_, **__: _note("reads", "synchronize"),
        "mem_get_info": lambda *_: (100 << 30, 139 << 30),
        "memory_allocated": lambda *_: 0,
        "memory_reserved": lambda *_: 0,
        "empty_cache": lambda: None,
        "get_device_capability": lambda *_: (9, 0),
        "get_device_name": lambda *_: "make-believe",
        "get_rng_state": lambda *_: state.clone(),
        "set_rng_state": lambda *_: None,
        "get_rng_state_all": lambda: [state.clone()],
        "set_rng_state_all": lambda *_: None,
    }


@contextlib.contextmanager
def _taken_as_plain() -> Iterator[None]:
    """The package refuses tensors that keep their numbers elsewhere; to it, those of the device keep them there."""
    from xai_fast.core import tensor_parts
    from xai_fast.core.plain import plain

    def taken(name: str, value: Tensor) -> Tensor:
        return value if isinstance(value, OnDevice) else plain(name, value)

    kinds = tensor_parts._PLAIN
    asking = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("xai_fast.") and vars(module).get("plain") is plain
    ]
    tensor_parts._PLAIN = (*kinds, OnDevice)  # type: ignore[assignment]
    for module in asking:
        module.plain = taken  # type: ignore[attr-defined]
    try:
        yield
    finally:
        tensor_parts._PLAIN = kinds
        for module in asking:
            module.plain = plain  # type: ignore[attr-defined]


@contextlib.contextmanager
def device(count: int = 1) -> Iterator[Ledger]:
    """Inside there are so many CUDA devices; what goes over between them and the host is counted.

    Where Triton is interpreting, its kernels are what ops run; elsewhere it is what they run on a CPU, over what the
    device holds, so that ops' own preparations are not seen but everything else is.
    """
    ledger, doubles = Ledger(), _doubles(count)
    saved = {name: getattr(torch.cuda, name) for name in doubles}
    runs: Any = _interpreter() or Op
    run = runs.__call__
    cudnn, moves = torch.backends.cudnn.is_available, nn.Module.to
    for name, double in doubles.items():
        setattr(torch.cuda, name, double)
    torch.backends.cudnn.is_available = lambda: True
    nn.Module.to = _module_to(moves)  # type: ignore[method-assign, assignment]
    runs.__call__ = _over_held(run)
    _LEDGERS.append(ledger)
    try:
        with _taken_as_plain(), _Placing():
            yield ledger
    finally:
        _LEDGERS.pop()
        runs.__call__ = run
        torch.backends.cudnn.is_available = cudnn
        nn.Module.to = moves  # type: ignore[method-assign]
        for name, own in saved.items():
            setattr(torch.cuda, name, own)
