"""A make-believe CUDA device: tensors that say cuda:0, compute on the CPU, refuse to meet the CPU's, and count reads.

What it shows without a GPU: that nothing on the device meets what is on the host, that no kernel is given the host's
memory, and how often, and by which line of the package, the host waits for an answer or sends something over. It says
nothing about speed, nor about what CUDA's own kernels compute.

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


def _asks(file: str) -> bool:
    """Whether a line there may be what asked: one of the package, but for its mode that every call passes."""
    return "/xai_fast/" in file and not file.endswith("/core/devices.py")


def _note(kind: str, what: str) -> None:
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
    """A tensor that says that it is on cuda:0; what it holds is on the CPU.

    Attributes:
        held: the numbers.
    """

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl
    device: ClassVar[Any] = property(lambda self: CUDA)
    is_cuda: ClassVar[Any] = property(lambda self: True)
    is_cpu: ClassVar[Any] = property(lambda self: False)

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device="cpu",  # autograd has no threads for a device that is not there
        )
        made.held = held
        return made

    def get_device(self) -> int:
        return 0

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            twin: Any = OnDevice(self.held.detach().clone())
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
        _refuse_mixed(func, args, hosts)
        _count(func, args, hosts)
        inner, named = tree_map_only(OnDevice, lambda tensor: tensor.held, (args, kwargs))
        answer = func(*inner, **named)
        if func in _COPIES and not isinstance(args[0], OnDevice):
            return args[0]
        if torch.Tag.inplace_view in func.tags:
            raise NotImplementedError(f"{func} changes the shape of a tensor in place, which this device cannot")
        own = {id(tensor.held): tensor for tensor in given if isinstance(tensor, OnDevice)}

        def wrapped(tensor: Tensor) -> Tensor:
            known = own.get(id(tensor))  # what was written in place is the very tensor that was given
            return OnDevice(tensor) if known is None else known

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
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return OnDevice(tensor.detach().clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient.held if isinstance(gradient, OnDevice) else gradient


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Any) -> Tensor:
        return tensor.held.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return OnDevice(gradient)


def to_device(tensor: Tensor) -> Tensor:
    """A copy on the device."""
    if isinstance(tensor, OnDevice):
        return tensor
    _note("copies", "to the device")
    return _Up.apply(tensor)  # type: ignore[return-value]


def to_host(tensor: Tensor) -> Tensor:
    """A copy on the CPU."""
    if not isinstance(tensor, OnDevice):
        return tensor
    _note("reads", "to the host")
    return _Down.apply(tensor)  # type: ignore[return-value]


def module_to_device(module: nn.Module) -> nn.Module:
    """The module itself, its parameters and buffers on the device."""
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None:
                part._parameters[name] = nn.Parameter(OnDevice(parameter.detach().clone()), parameter.requires_grad)
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = OnDevice(buffer.detach().clone())
    return module


def _type_of(device: Any) -> str | None:
    if isinstance(device, torch.device):
        return device.type
    if isinstance(device, str) or (isinstance(device, int) and not isinstance(device, bool)):
        return torch.device(device).type if isinstance(device, str) else "cuda"
    return None


def _placed(tensor: Tensor, device: Any) -> Tensor:
    kind = _type_of(device)
    return to_device(tensor) if kind == "cuda" else to_host(tensor) if kind == "cpu" else tensor


def _to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`Tensor.to` in all its forms."""
    names, device = iter(("dtype", "non_blocking", "copy")), kwargs.pop("device", None)
    other = kwargs.pop("other", None)
    for value in args:
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
        kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        if func in _SENT:
            return _placed(func(*args, **kwargs), kind)
        made = func(*args, **kwargs)
        if kind == "cuda":
            return tree_map_only(Tensor, lambda one: one if isinstance(one, OnDevice) else OnDevice(one), made)
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
        return run(self, *inner, **named)

    return call


def _name_of(kernel: Any) -> str:
    return kernel.name if isinstance(kernel, Op) else kernel.fn.__name__


def _interpreter() -> Any:
    """What runs Triton's kernels where they are interpreted; nothing elsewhere."""
    if not interpreting() or importlib.util.find_spec("triton") is None:
        return ()
    from triton.runtime.interpreter import GridExecutor

    return GridExecutor


def _doubles() -> dict[str, Any]:
    """What stands for functions of `torch.cuda`."""
    state = torch.zeros(16, dtype=torch.uint8)
    nothing = contextlib.nullcontext
    return {
        "_lazy_init": lambda: None,
        "_lazy_call": lambda *_, **__: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda *_: None,
        "device": lambda *_: nothing(),
        "device_of": lambda *_: nothing(),
        "current_stream": lambda *_: None,
        "synchronize": lambda *_, **__: _note("reads", "synchronize"),
        "mem_get_info": lambda *_: (100 << 30, 139 << 30),
        "memory_allocated": lambda *_: 0,
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
def device() -> Iterator[Ledger]:
    """Inside there is one CUDA device; what goes over is counted.

    Where Triton is interpreting, its kernels are what ops run; elsewhere it is what they run on a CPU, over what the
    device holds, so that ops' own preparations are not seen but everything else is.
    """
    ledger, doubles = Ledger(), _doubles()
    saved = {name: getattr(torch.cuda, name) for name in doubles}
    runs: Any = _interpreter() or Op
    run = runs.__call__
    for name, double in doubles.items():
        setattr(torch.cuda, name, double)
    runs.__call__ = _over_held(run)
    _LEDGERS.append(ledger)
    try:
        with _taken_as_plain(), _Placing():
            yield ledger
    finally:
        _LEDGERS.pop()
        runs.__call__ = run
        for name, own in saved.items():
            setattr(torch.cuda, name, own)
