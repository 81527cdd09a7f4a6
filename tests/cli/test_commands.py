"""The other commands: fast help, the list of methods, the doctor, and the demonstration with its bars."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import xai_fast as xf
from xai_fast.cli.app import app
from xai_fast.ops import all_ops


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "--help"], ["demo", "--help"], ["methods"]])
def test_help_and_listings_do_not_import_torch(arguments: list[str]) -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from xai_fast.cli.app import app; "
        f"result = CliRunner().invoke(app, {arguments!r}); assert result.exit_code == 0, result.output; "
        "assert 'torch' not in sys.modules, 'torch was imported'; print(result.output)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_methods_lists_the_registry() -> None:
    result = CliRunner().invoke(app, ["methods"])
    for name, info in xf.methods().items():
        assert name in result.output
        assert info.paper in result.output


def test_doctor_lists_every_op() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    for name in all_ops():
        assert re.search(rf"{name}\s+yes", result.output)


def test_demo_meets_its_bars(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path), "--mosaics", "4"])
    assert result.exit_code == 0, result.output
    scores = {}
    for line in result.output.splitlines():
        row = re.match(r"(\w+)\s+(-?[\d.]+)\s+(-?[\d.]+)\s+(-?[\d.]+)\s+(\d+)\s", line)
        if row:
            scores[row[1]] = (float(row[2]), float(row[3]))
    fitting = {n for n, info in xf.methods().items() if info.attributes and not info.asks_truth}
    assert set(scores) == fitting - {"DRISE"}  # of a classifier it says what RISE does
    assert scores["GradCAM"][0] >= 0.8
    assert scores["AblationCAM"][0] >= 0.65
    assert scores["Occlusion"][0] >= 0.6
    assert scores["Occlusion"][1] >= 0.8
    assert (tmp_path / "index.html").is_file()
    assert len(list(tmp_path.glob("*.GradCAM.png"))) == 10
