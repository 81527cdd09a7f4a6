"""Every example writes a picture that is not blank, and one line saying so; and it runs from a fresh process."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("[!_]*.py"))
PAGES = ["lime_text"]  # these write a page instead of a picture
NEEDED = {"side_by_side": ("captum", "torchcam", "pytorch_grad_cam", "shap", "lime", "matplotlib")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all examples: those that need the small network train it once."""
    return tmp_path_factory.mktemp("pictures")


SLOW = ("side_by_side",)  # what the libraries themselves take


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in NAMES if name not in PAGES],
)
def test_example_writes_its_picture(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for library in NEEDED.get(name, ()):
        pytest.importorskip(library, reason=f"{library} is not installed")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    out = folder / f"{name}.png"
    assert importlib.import_module(name).main(["--coarse", "--out", str(out)]) == out
    assert capsys.readouterr().out.endswith(f"wrote {out}\n")
    pixels = np.asarray(Image.open(out).convert("RGB"), dtype=float)
    assert pixels.std() > 10
    assert min(pixels.shape[:2]) > 200


@pytest.mark.parametrize("name", PAGES)
def test_example_writes_its_page(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    out = tmp_path / f"{name}.html"
    assert importlib.import_module(name).main(["--coarse", "--out", str(out)]) == out
    assert capsys.readouterr().out.endswith(f"wrote {out}\n")
    assert out.read_text(encoding="utf-8").count("<mark") > 3


def test_examples_are_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    assert [name for name in NAMES if f"`{name}.py`" not in listed] == []


def test_example_runs_from_a_fresh_process(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "error_attribution.py"), "--coarse", "--out", "new/picture.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "picture.png").exists()
