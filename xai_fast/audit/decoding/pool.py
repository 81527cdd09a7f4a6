"""Several processes that decode, asked ahead of need; what they answer comes in the order of the requests."""

from __future__ import annotations

import dataclasses
import queue
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xai_fast._printing import reason
from xai_fast.audit.sources.payload import Payload

from .process import CrashedError, Process

DECODE_ERROR, TIME_OUT = "decode_error", "timeout"
_TRIES = 2  # of a file whose decoder crashed: something else may have killed the process


@dataclass(frozen=True)
class Request:
    """One image that is wanted.

    Attributes:
        shard: it belongs to.
        position: in the shard.
        fetch: says where it is, from a thread.
        mask: says where its mask is, likewise; None where it has none, or it is not wanted.
    """

    shard: int
    position: int
    fetch: Callable[[], Payload]
    mask: Callable[[], Payload] | None = None


@dataclass(frozen=True)
class Decoded:
    """One image.

    Attributes:
        shard: it belongs to.
        position: in the shard.
        pixels: (h, w) or (h, w, 3) uint8; None where it could not be decoded.
        size: (width, height) of the photograph.
        properties: see `store.schema.PROPERTIES`.
        status: "ok", "decode_error" or "timeout".
        error: what was wrong, in words.
        mask: (h, w) uint8, how much of each of the pixels the mask covers, in 255ths; None where it has none.
        mask_error: what is wrong with it, in words.
        looks: see `store.schema.LOOKS`, by name.
    """

    shard: int
    position: int
    pixels: NDArray[np.uint8] | None = None
    size: tuple[int, int] | None = None
    properties: tuple[float, ...] | None = None
    status: str = "ok"
    error: str | None = None
    mask: NDArray[np.uint8] | None = None
    mask_error: str | None = None
    looks: Mapping[str, float | int] | None = None


class Decoders:
    """A context with processes that decode.

    Args:
        preprocess: settings of an `xf.Preprocess`, by which photographs become the pictures that the model sees; None
            leaves them whole.
        workers: how many processes.
        ahead: images that are decoded before they are wanted.
        time_out: seconds that one image may take.
        command: of a process.
    """

    def __init__(
        self,
        preprocess: dict[str, Any] | None,
        *,
        workers: int,
        ahead: int,
        time_out: float = 30.0,
        command: Sequence[str] = (sys.executable, "-m", "xai_fast.audit.decoding.worker"),
    ) -> None:
        self._ahead = ahead
        self._processes = [Process(command, preprocess, time_out) for _ in range(workers)]
        self._free: queue.SimpleQueue[Process] = queue.SimpleQueue()
        for process in self._processes:
            self._free.put(process)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.close()
        self._threads.shutdown(wait=True)

    def stream(self, requests: Iterable[Request]) -> Iterator[Decoded]:
        """The images in the order in which they were asked for; requests are taken as they are needed."""
        waiting: deque[Future[Decoded]] = deque()
        more = iter(requests)
        while True:
            while len(waiting) < self._ahead and (request := next(more, None)) is not None:
                waiting.append(self._threads.submit(self._one, request))
            if not waiting:
                return
            yield waiting.popleft().result()

    def _one(self, request: Request) -> Decoded:
        process = self._free.get()
        try:
            found = self._decoded(process, request)
            return found if request.mask is None or found.pixels is None else self._masked(process, request.mask, found)
        finally:
            self._free.put(process)

    def _decoded(self, process: Process, request: Request) -> Decoded:
        try:
            header, pixels = self._asked(process, request.fetch)
        except _FailedError as failed:
            return Decoded(request.shard, request.position, status=failed.status, error=str(failed))
        width, height = header["view"]
        shape = (height, width) if header["mode"] == "L" else (height, width, 3)
        return Decoded(
            request.shard,
            request.position,
            np.frombuffer(pixels, np.uint8).reshape(shape),
            tuple(header["size"]),
            tuple(header["properties"]),
            looks=header["looks"],
        )

    def _masked(self, process: Process, fetch: Callable[[], Payload], found: Decoded) -> Decoded:
        """An image with its mask; what is wrong with that costs the mask alone."""
        try:
            header, pixels = self._asked(process, fetch, mask=True)
        except _FailedError as failed:
            return dataclasses.replace(found, mask_error=f"the mask: {failed}")
        if (size := tuple(header["size"])) != found.size:
            assert found.size is not None
            (width, height), (own, high) = size, found.size
            return dataclasses.replace(
                found, mask_error=f"the mask has {width} x {height} pixels, and its photograph {own} x {high}"
            )
        width, height = header["view"]
        mask = np.frombuffer(pixels, np.uint8).reshape(height, width)
        if not mask.any():
            return dataclasses.replace(found, mask_error="the mask is black wherever the model sees")
        return dataclasses.replace(found, mask=mask)

    def _asked(
        self, process: Process, fetch: Callable[[], Payload], mask: bool = False
    ) -> tuple[dict[str, Any], bytes]:
        """What a process makes of a file.

        Raises:
            _FailedError: says why there is nothing.
        """
        try:
            payload = fetch()
        except Exception as error:  # what is behind a URL may fail in any way
            said = error.strerror if isinstance(error, OSError) and error.strerror else reason(error)
            raise _FailedError(DECODE_ERROR, f"cannot be read ({said})") from None
        crashed = ""
        for _ in range(_TRIES):
            try:
                header, pixels = process.ask(payload, mask)
            except TimeoutError:
                raise _FailedError(TIME_OUT, f"decoding took more than {process.time_out:g} s") from None
            except CrashedError as error:
                crashed = str(error)
                continue
            if "error" in header:
                raise _FailedError(DECODE_ERROR, reason(header["error"]))
            return header, pixels
        raise _FailedError(DECODE_ERROR, crashed)


class _FailedError(Exception):
    """An image that is not there, for the status and in the words of its row."""

    def __init__(self, status: str, said: str) -> None:
        super().__init__(said)
        self.status = status
