"""Every example runs from a fresh process and writes a picture that is not blank."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
QUICK = {"occlusion.py": ["--coarse"]}


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_example_writes_its_picture(example: str, tmp_path: Path) -> None:
    out = tmp_path / "picture.png"
    command = [sys.executable, str(EXAMPLES / example), *QUICK[example], "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    pixels = np.asarray(Image.open(out).convert("RGB"), dtype=float)
    assert pixels.std() > 10
    assert min(pixels.shape[:2]) > 300
