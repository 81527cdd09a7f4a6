"""CUDA graphs: what is asked of a GPU is recorded once, and asked for again as a whole, on the same memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")
_WARM = 2  # runs before recording: libraries make their workspaces, and choose their kernels, in the first
_ONE = threading.Lock()  # a process records one graph at a time
# Operators for whose answer, or shape, the host waits.
_ASKING = {
    *("_local_scalar_dense", "is_nonzero", "equal", "allclose", "nonzero", "masked_select", "_unique2", "unique_dim"),
    *("unique_consecutive", "bincount", "_linalg_eigh", "_linalg_svd", "linalg_lstsq", "_linalg_solve_ex", "histc"),
}
_FAILED: list[Any] = []  # graphs whose recording broke off: torch's allocator may still refer to them


class UnrecordableError(RuntimeError):
    """What is run asks for something that cannot be repeated without the host; the message says what."""


class _Watched(TorchDispatchMode):
    """Refuses what a recording would break off at: broken off, it leaves the process's allocator in disorder."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operator that runs inside."""
        name, answer = func.overloadpacket.__name__, None
        if name in _ASKING:
            raise UnrecordableError(f"{name} makes the host wait")
        answer = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, answer))
        kinds = {leaf.device.type for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim}
        if len(kinds) > 1:
            raise UnrecordableError(f"{name} copies between the host and the device")
        return answer


class Recorder:
    """Records on one device, into memory that all of its recordings share: they run one after the other.

    Args:
        device: with its index.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._last: torch.cuda.Stream | None = None

    def record(self, run: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """What repeats a run, and what the run returned, whose memory every repetition writes anew.

        Raises:
            UnrecordableError: the run asks for what cannot be repeated, or a recording broke off before.
            Exception: of the run.
        """
        if _FAILED:
            raise UnrecordableError("an earlier recording broke off")
        with torch.cuda.device(self._device), _ONE:
            here = torch.cuda.current_stream(self._device)
            self._side.wait_stream(here)
            with torch.cuda.stream(self._side):
                for _ in range(_WARM - 1):
                    run()
                with _Watched():
                    run()
            here.wait_stream(self._side)
            graph = torch.cuda.CUDAGraph()
            try:
                # Other threads may go on allocating meanwhile.
                with torch.cuda.graph(graph, pool=self._pool, stream=self._side, capture_error_mode="thread_local"):
                    made = run()
            except BaseException:
                self._tidy(graph, here)
                raise
            here.wait_stream(self._side)
        return graph.replay, made

    def order(self) -> None:
        """What is asked for next waits for what was asked for last, on whatever stream: both use the same memory."""
        here = torch.cuda.current_stream(self._device)
        if self._last is not None and self._last != here:
            here.wait_stream(self._last)
        self._last = here

    def _tidy(self, graph: Any, here: torch.cuda.Stream) -> None:
        """Puts right what torch leaves behind where a recording breaks off: its stream, and where memory comes from."""
        _FAILED.append(graph)
        torch.cuda.set_stream(here)
        with suppress(Exception):  # it has been ended, or torch calls it otherwise
            torch._C._cuda_endAllocateToPool(self._device.index, self._pool)  # type: ignore[attr-defined]
