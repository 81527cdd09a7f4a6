"""One process that decodes: asked through a pipe, within a time limit, and started again after it ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xai_fast.audit.sources.payload import Part, Payload

from .wire import packed, unpacked

_START = 120.0  # seconds in which a process must have started, on a machine that is busy with something else


class CrashedError(Exception):
    """A process ended while it decoded."""


class Process:
    """One process, started when it is needed and again after it ended."""

    def __init__(self, command: Sequence[str], preprocess: dict[str, Any] | None, time_out: float) -> None:
        self._command, self._preprocess, self.time_out = command, preprocess, time_out
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def ask(self, payload: Payload, mask: bool = False) -> tuple[dict[str, Any], bytes]:
        """The answer to one request, of a photograph or a mask.

        Raises:
            TimeoutError: it took too long; the process is gone.
            CrashedError: the process ended.
        """
        process = self._running()
        header: dict[str, Any] = {"preprocess": self._preprocess, "time_out": self.time_out, "mask": mask}
        content = payload if isinstance(payload, bytes) else b""
        if isinstance(payload, Path):
            header["path"] = os.fsencode(payload).hex()
        elif isinstance(payload, Part):
            header |= {"path": os.fsencode(payload.path).hex(), "offset": payload.offset, "length": payload.length}
        until = time.monotonic() + self.time_out
        try:
            self._send(process, packed(header, content), until)
            return unpacked(lambda count: self._receive(process, count, until))
        except TimeoutError:
            self._end()
            raise
        except (EOFError, OSError, ValueError, KeyError) as error:
            code = self._end(grace=1.0)
            how = f"signal {-code}, {signal.Signals(-code).name}" if code is not None and code < 0 else f"code {code}"
            raise CrashedError(f"the decoder crashed ({how})") from error

    def close(self) -> None:
        """Ends the process for good."""
        self._closed = True
        self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise CrashedError("the decoders were closed")
        if self._process is None:
            # In a session of its own: Ctrl-C in a terminal is for us to handle. One thread: it is one of several.
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=environment,
            )
            assert self._process.stdin is not None
            os.set_blocking(self._process.stdin.fileno(), False)
            process, until = self._process, time.monotonic() + _START
            try:
                unpacked(lambda count: self._receive(process, count, until))
            except (EOFError, TimeoutError, OSError, ValueError) as error:
                self._end()
                raise CrashedError("the decoder did not start") from error
        return self._process

    def _send(self, process: subprocess.Popen[bytes], message: bytes, until: float) -> None:
        assert process.stdin is not None
        number, left = process.stdin.fileno(), memoryview(message)
        while left:
            _, ready, _ = select.select([], [number], [], max(until - time.monotonic(), 0))
            if not ready:
                raise TimeoutError
            left = left[os.write(number, left) :]

    def _receive(self, process: subprocess.Popen[bytes], count: int, until: float) -> bytes:
        assert process.stdout is not None
        number, parts = process.stdout.fileno(), []
        while count:
            ready, _, _ = select.select([number], [], [], max(until - time.monotonic(), 0))
            if not ready:
                raise TimeoutError
            part = os.read(number, min(count, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _end(self, grace: float = 0.0) -> int | None:
        """Ends the process, and returns how it ended by itself within `grace` seconds; None where it did not."""
        process, self._process = self._process, None
        if process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
        code = process.returncode
        if code is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return code
