"""How much memory something takes, measured in a fresh process, where nothing was freed before."""

from __future__ import annotations

import subprocess
import sys

_AROUND = """
import resource, torch, xai_fast as xf
from pathlib import Path
torch.set_num_threads(1)
{code}
def peak(count):
    work(count)
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # What `getrusage` tells begins with what started this process held, which hides any growth below that.
    return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1])
before = peak({few})
print((peak({many}) - before) // 1024)
"""


def growth(code: str, few: int, many: int) -> int:
    """By how many MB the peak grows from `work(few)` to `work(many)`, where the code defines `work`."""
    code = _AROUND.format(code=code, few=few, many=many)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
