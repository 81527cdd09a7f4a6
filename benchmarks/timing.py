"""Seconds of a call, what many of them come to, and the peak of memory: shared by all that is measured here."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def timed(call: Callable[[], Any]) -> float:
    """Seconds that the call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and interquartile range."""
    quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {"median": statistics.median(values), "iqr": quartiles[2] - quartiles[0]}


def peak() -> int:
    """The most bytes of memory that this process has held at once, since its program began.

    On Linux as the kernel counts it for the program: what `getrusage` tells begins with what the process was before,
    a copy of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
