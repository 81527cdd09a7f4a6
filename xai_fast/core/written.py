"""Was memory written since it was last asked about? The system's page tables know it, where it lets them be asked."""

from __future__ import annotations

import mmap
from array import array

import torch

from xai_fast.ops._library import compiled, no_library, older_than

_LEAST = 1 << 16  # bytes; whatever is smaller is read sooner than asked about
_MOST = 4096  # ranges; each may become a mapping of its own, of which a process has some 65,000
_UNTOLD = 2  # of what `written_pages` says
_absent = older_than("written_pages")


def cannot_watch() -> str | None:
    """Why this process is not told which memory was written, or None when it is.

    Devices that write memory by themselves go past page tables, so where one was used nothing is watched.
    """
    if reason := no_library() or _absent():
        return reason
    if torch.cuda.is_initialized() or torch.xpu.is_initialized():
        return "a device is in use that may write memory by itself"
    return compiled("cannot_watch_pages")()() or None


class Watch:
    """Memory that is watched from now on.

    It costs whoever writes there about a microsecond per page, once after every look.

    Args:
        spans: addresses and lengths in bytes, by turns, of memory that is in use.

    Attributes:
        rest: what is not watched, in the same form: pages that other memory shares, and what cannot be told.
    """

    def __init__(self, spans: array[int]) -> None:
        ranges, self.rest = _pages(spans)
        self._since, states = _look(ranges, 0)
        self._ranges = array("q")
        for place, state in enumerate(states):
            start, end = ranges[2 * place : 2 * place + 2]
            if state == _UNTOLD:
                self.rest.extend((start, end - start))
            else:
                self._ranges.extend((start, end))

    def written(self) -> bool:
        """Whether anything may have been written where it is watched, since it was made or this was last asked."""
        self._since, states = _look(self._ranges, self._since)
        return any(states)


def _look(ranges: array[int], since: int) -> tuple[int, list[int]]:
    """The number of this look, and what it says of each range; see `csrc/ops.h`."""
    count = len(ranges) // 2
    if not count or cannot_watch() is not None:
        return since, [_UNTOLD] * count
    states = torch.empty(count, dtype=torch.int64)
    return compiled("written_pages")()(torch.frombuffer(ranges, dtype=torch.int64), since, states), states.tolist()


def _pages(spans: array[int]) -> tuple[array[int], array[int]]:
    """Whole pages inside the larger of the spans, as ranges from and to; and the rest, as spans."""
    size = mmap.PAGESIZE
    ranges, rest = array("q"), array("q")
    for start, length in zip(spans[::2], spans[1::2], strict=True):
        first, last = -(-start // size) * size, (start + length) // size * size
        if last - first < _LEAST or not start or len(ranges) >= 2 * _MOST:
            rest.extend((start, length))
            continue
        ranges.extend((first, last))
        rest.extend((start, first - start, last, start + length - last))
    return ranges, rest
