"""The function, the context manager and the command."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import xai_fast as xf

ROOT = Path(xf.__file__).parent.parent


def run(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "xai_fast.accelerate", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"`names` holds 'kaptum'; give 'captum' or"):
        xf.accelerate("kaptum")


def test_what_is_not_installed_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    for name in ("captum", "pytorch_grad_cam", "torchcam", "lime", "shap", "quantus"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ModuleNotFoundError, match="`names` holds 'captum', which is not installed"):
        xf.accelerate("captum")
    assert xf.accelerate().libraries == ()


def test_a_script_sees_what_it_would_see(tmp_path):
    (tmp_path / "beside.py").write_text("answer = 42\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, beside\n"
        "assert 'captum' not in sys.modules and 'torch' not in sys.modules\n"
        "print(__name__, sys.argv[1:], beside.answer)\n"
        "sys.exit(3)\n"
    )
    done = run("--report", script, "--flag", "x", cwd=tmp_path.parent)
    assert done.returncode == 3, done.stderr
    assert done.stdout.split("\n")[0] == "__main__ ['--flag', 'x'] 42"
    assert "0 calls accelerated, 0 passed on" in done.stderr


def test_a_module_sees_what_it_would_see(tmp_path):
    (tmp_path / "tool.py").write_text("import sys\nprint(__name__, sys.argv[1:])\n")
    done = run("-m", "tool", "-x", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "__main__ ['-x']"
    assert "accelerated" not in done.stderr


@pytest.mark.parametrize("always", [True, False])
def test_a_script_that_explains(tmp_path, always):
    """So small a network is served where that is asked for, as by the libraries' own tests."""
    pytest.importorskip("captum", reason="captum is not installed")
    script = tmp_path / "explains.py"
    script.write_text(
        "import torch\n"
        "from captum.attr import Occlusion\n"
        "from torch import nn\n"
        "net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))\n"
        "occlusion = Occlusion(net.eval())\n"
        "print(tuple(occlusion.attribute(torch.rand(2, 3, 8, 8), (3, 4, 4), strides=(3, 4, 4), target=1).shape))\n"
    )
    done = run("--report", *(["--always"] if always else []), script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(2, 3, 8, 8)"
    counted = "1 calls accelerated, 0 passed on" if always else "0 calls accelerated, 1 passed on"
    assert counted in done.stderr
    assert always or "little work on a small model" in done.stderr
    assert "Occlusion" in done.stderr
