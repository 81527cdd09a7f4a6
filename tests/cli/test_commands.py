"""The other commands: fast help, the list of methods, the doctor, and the demonstration with its bars."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import xai_fast as xf
from xai_fast.cli.app import app
from xai_fast.ops import all_ops


@pytest.mark.parametrize(
    "arguments", [["--help"], ["explain", "--help"], ["demo", "--help"], ["methods"], ["audit", "run", "--help"]]
)
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


@pytest.mark.parametrize("width", [40, 80, 200])
def test_tables_are_never_cut_off(width: int) -> None:
    """Not by a narrow terminal, and not where the output goes to a file."""
    for command in ("methods", "doctor"):
        result = CliRunner().invoke(app, [command], env={"COLUMNS": str(width)})
        assert "\N{HORIZONTAL ELLIPSIS}" not in result.output
        assert result.output == CliRunner().invoke(app, [command]).output


def test_doctor_lists_every_op() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    for name in all_ops():
        assert re.search(rf"{name}\s+yes", result.output)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_and_lines_share_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from xai_fast.cli.console import err as console
    from xai_fast.cli.console import line, problem
    from xai_fast.cli.progress import Progress

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "is_interactive", True)  # which it found out when it was made
    out, err = Terminal(), Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    engine = xf.Engine(lambda x: x.mean((2, 3)))
    with Progress(engine, 2) as progress:
        progress.begin("a[b].png")
        xf.Occlusion(engine, window=1)(torch.ones(1, 2, 3, 3), 0)
        assert (sys.stdout, sys.stderr) == (out, err)
        with progress.paused():
            line("a result")
            problem("a reason")
        progress.begin("c.png")
    assert out.getvalue() == "a result\n"
    assert "a reason" in err.getvalue()
    assert "a[b].png (1 of 2)" in err.getvalue()
    assert "10/10" in err.getvalue()
    assert "c.png (2 of 2)" in err.getvalue()
    assert engine.settings.progress is False


@pytest.fixture
def one_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demonstration as it is, of the cat alone."""
    from xai_fast.cli import demo

    monkeypatch.setattr(demo, "PHOTOGRAPHS", ("cat",))


def test_demo_shows_one_method_of_each_family(one_photograph: None, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert re.search(r"^cat: cat \(p = 0.9\d\), .* model rows$", result.output, re.MULTILINE)
    methods = ("GradCAM", "IntegratedGradients", "KernelShap", "Occlusion", "RISE")
    maps = {f"cat.{name}.{end}" for name in methods for end in ("png", "safetensors")}
    assert {path.name for path in tmp_path.iterdir()} == {*maps, "cat.photo.png", "photographs.jpg", "index.html"}
    assert Image.open(tmp_path / "photographs.jpg").width <= 2400
    assert 6 * sum(path.stat().st_size for path in tmp_path.iterdir()) < 15e6
    assert "within" not in result.output  # the table is asked for


def test_demo_refuses_mosaics_without_the_table(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "new"), "--mosaics", "4"])
    assert result.exit_code == 2
    assert "`--mosaics`" in result.output
    assert not (tmp_path / "new").exists()


def scores_of(output: str) -> dict[str, tuple[float, float]]:
    """What the table of the demonstration says: (share, correlation) by method."""
    rows = re.finditer(r"^(\w+)\s+(-?[\d.]+)\s+(-?[\d.]+)\s+(-?[\d.]+)\s+(\d+)\s", output, re.MULTILINE)
    return {row[1]: (float(row[2]), float(row[3])) for row in rows}


def test_demo_meets_its_bars(one_photograph: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xai_fast.cli import demo

    fitting = {n for n, info in xf.methods().items() if info.attributes and not info.asks_truth}
    assert set(demo._fitting()) == fitting - {"DRISE"}  # of a classifier it says what RISE does
    monkeypatch.setattr(demo, "_fitting", lambda: ["AblationCAM", "GradCAM", "IntegratedGradients", "Occlusion"])
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path), "--all", "--mosaics", "4"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.replace(str(tmp_path), "").splitlines())) <= 80
    scores = scores_of(result.output)
    assert len(scores) == 4
    assert scores["GradCAM"][0] >= 0.8
    assert scores["AblationCAM"][0] >= 0.65
    assert scores["Occlusion"][0] >= 0.6
    assert scores["Occlusion"][1] >= 0.8
    assert (tmp_path / "index.html").is_file()
    assert len(list(tmp_path.glob("*.GradCAM.png"))) == 5


@pytest.mark.slow
def test_demo_scores_every_method(one_photograph: None, tmp_path: Path) -> None:
    from xai_fast.cli import demo

    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path), "--all", "--mosaics", "1"])
    assert result.exit_code == 0, result.output
    assert set(scores_of(result.output)) == set(demo._fitting())
