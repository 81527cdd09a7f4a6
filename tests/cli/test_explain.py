"""`xai-fast explain` from outside: what it writes, what it says, and how it ends when the input is bad."""

from __future__ import annotations

import re
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
import torch
from cli_support import run, write_models
from PIL import Image

import xai_fast as xf
from xai_fast.models.demo import photograph

NAN_MODEL = """
import torch
from xai_fast import Preprocess

class Net(torch.nn.Module):
    def forward(self, x):
        return torch.full((len(x), 3), float("nan")) + x.mean((1, 2, 3))[:, None]

def make():
    return Net(), Preprocess(resize=32, crop=32), ("a", "b", "c")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    photograph("cat").save(folder / "cat.jpg")
    photograph("coffee").save(folder / "coffee.png")
    return folder


def test_writes_pictures_values_and_a_page(folder: Path, tmp_path: Path) -> None:
    result = run(folder / "cat.jpg", folder / "coffee.png", "--method", "GradCAM,Saliency", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    for stem in ("cat", "coffee"):
        assert re.search(rf"{stem}\.\w+: {stem} \(p = 0\.\d+\), [\d.]+ s, 2 model rows", result.output)
        for method in ("GradCAM", "Saliency"):
            assert Image.open(tmp_path / f"{stem}.{method}.png").size == (224, 224)
            explanation = xf.Explanation.load(tmp_path / f"{stem}.{method}.safetensors")
            assert explanation.name == method
            assert explanation.values.shape[-2:] == (224, 224)
            assert explanation.values.abs().max() > 0
        assert Image.open(tmp_path / f"{stem}.png").width > 3 * 224
    page = (tmp_path / "index.html").read_text()
    assert 'src="cat.GradCAM.png"' in page
    assert 'src="coffee.photo.png"' in page
    assert not re.search(r'(src|href)="(https?:|/)', page)


def test_the_map_is_what_python_gives(folder: Path, tmp_path: Path) -> None:
    run(
        folder / "cat.jpg",
        "--method",
        "Occlusion",
        "--set",
        "Occlusion.window=64",
        "--set",
        "stride=32",
        "-o",
        tmp_path,
    )
    model, preprocess, _ = xf.load("demo")
    assert preprocess is not None
    inputs = preprocess(Image.open(folder / "cat.jpg"))[None]
    expected = xf.Occlusion(model, window=64, stride=32).attribute(inputs)
    found = xf.Explanation.load(tmp_path / "cat.Occlusion.safetensors").values
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("target", ["coffee", "Coffee", "3"])
def test_target_by_name_or_index(folder: Path, tmp_path: Path, target: str) -> None:
    result = run(folder / "cat.jpg", "--method", "GradCAM", "--target", target, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    explanation = xf.Explanation.load(tmp_path / "cat.GradCAM.safetensors")
    assert explanation.target_names(0) == ["coffee"]


def test_layer_is_used(folder: Path, tmp_path: Path) -> None:
    model = xf.load("demo").model
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)]
    result = run(folder / "cat.jpg", "--method", "GradCAM", "--layer", names[2], "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert xf.Explanation.load(tmp_path / "cat.GradCAM.safetensors").layer == (names[2],)


def test_equal_stems_are_numbered(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    photograph("rocket").save(other / "cat.jpg")
    result = run(folder / "cat.jpg", other / "cat.jpg", "--method", "GradCAM", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    first, second = (xf.Explanation.load(tmp_path / "out" / f"{n}.GradCAM.safetensors") for n in ("cat", "cat-2"))
    assert first.target_names(0) != second.target_names(0)


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))


def test_bad_images_beside_a_good_one(folder: Path, tmp_path: Path) -> None:
    bad = {
        "missing.jpg": None,
        "text.jpg": b"this is not a picture\n" * 40,
        "zero.png": b"",
        "truncated.jpg": (folder / "cat.jpg").read_bytes()[:2000],
        "bomb.png": _png_header(50_000, 50_000),
        "tags [red].jpg": b"\xff\xd8\xff\xe0nonsense",
    }
    for name, content in bad.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    began = time.monotonic()
    paths = [tmp_path / name for name in bad]
    result = run(*paths[:3], folder / "cat.jpg", *paths[3:], "--method", "GradCAM", "--out", tmp_path / "out")
    assert result.exit_code == 3, result.output
    assert time.monotonic() - began < 60
    for name in bad:
        (line,) = [line for line in result.stderr.splitlines() if name in line]
        assert line.startswith("error: ")
    assert "1 of 7 images explained" in result.stdout
    assert xf.Explanation.load(tmp_path / "out" / "cat.GradCAM.safetensors").values.abs().max() > 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert all(name in page for name in bad)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--method", "Occlusion", "--set", "window=500"], ["`window` 500", "(3, 224, 224)"]),
        (["--method", "GradCAM", "--target", "dog"], ["`target` 'dog'", "12 classes", "'"]),
        (["--method", "GradCAM", "--target", "12"], ["`target` 12", "12"]),
        (["--method", "GradCAM", "--target", "-1"], ["`target`", "-1"]),
        (["--method", "GradCam2"], ["`method` 'GradCam2'", "GradCAM"]),
        (["--method", "GradCAM", "--layer", "layer9"], ["`layer` 'layer9'", "close are"]),
        (["--method", "Occlusion", "--layer", "layer4"], ["layer", "Occlusion has"]),
        (["--method", "GradCAM", "--set", "windows=3"], ["windows", "GradCAM has"]),
        (["--method", "GradCAM", "--set", "Occlusion.window=3"], ["Occlusion", "not among"]),
        (["--method", "Occlusion", "--set", "window"], ["`--set`", "NAME=VALUE"]),
        (["--method", "Occlusion", "--set", "window=wide"], ["`window`", "'wide'"]),
        (["--method", "Occlusion", "--set", "baseline=grey"], ["`baseline`", "'grey'"]),
        (["--model", "torchvision:resnet51"], ["resnet51", "resnet50"]),
        (["--model", "no_such.py:make"], ["no_such.py"]),
        (["--model", "nothing"], ["`model`", "nothing"]),
        (["--weights", "no_such.pth"], ["`weights`", "no_such.pth"]),
        (["--unknown", "1"], ["unknown"]),
        (["--method", ""], ["`--method`", "GradCAM"]),
        (["--method", " , "], ["`--method`", "GradCAM"]),
        (["--method", "GradCAM", "--target", "\N{SUPERSCRIPT THREE}"], ["`target`"]),
        (["--method", "GradCAM", "--target", "9" * 30], ["`target`"]),
        (["--method", "Occlusion", "--set", "window=8", "--set", "window=16"], ["`--set` 'window=16'", "once"]),
        (["--method", "GradCAM", "--layer", "a", "--set", "layer=b"], ["`--set` 'layer=b'", "once"]),
        (["--weights", "."], ["`weights`", "folder"]),
        (["--weights", "/dev/zero"], ["`weights`", "no ordinary file"]),
        (["--weights", __file__], ["`weights`", "test_explain.py"]),
        (["--model", "FILE:ends"], ["`model`", "SystemExit"]),
        (["--model", "FILE:fails"], ["`model`", "ZeroDivisionError"]),
        (["--model", "FILE:oddly"], ["Odd"]),
        (["--model", "FILE:says_nothing"], ["Mute"]),
        (["--model", "FILE:nothing"], ["`model`", "NoneType"]),
        (["--model", "FILE:missing"], ["`model`", "missing"]),
    ],
)
def test_wrong_usage_runs_nothing(folder: Path, tmp_path: Path, options: list[str], named: list[str]) -> None:
    options = [option.replace("FILE", str(write_models(tmp_path))) for option in options]
    result = run(folder / "cat.jpg", *options, "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    for part in named:
        assert part in result.stderr, result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("backend", ["fastest", "cuda"])
def test_a_backend_that_cannot_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setenv("XAI_FAST_BACKEND", backend)
    result = run(folder / "cat.jpg", "--method", "GradCAM", "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert f"`XAI_FAST_BACKEND` is '{backend}'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_model_that_returns_nan(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "nan_net.py").write_text(NAN_MODEL)
    out = tmp_path / "out"
    result = run(
        folder / "cat.jpg", "--model", f"{tmp_path / 'nan_net.py'}:make", "--method", "Occlusion", "--set", "window=8",
        "--out", out,
    )  # fmt: skip
    assert result.exit_code == 3, result.output
    assert re.search(r"cat\.jpg.*Occlusion.*NaN or Inf", result.stderr)
    assert not list(out.glob("*.Occlusion.*"))


def test_ctrl_c_leaves_nothing_half_written(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "xai_fast", "explain", *[folder / "cat.jpg"] * 2, "--method", "Occlusion"]
    command += ["--set", "window=3", "--set", "stride=1", "--out", tmp_path / "out"]
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, torchvision, xai_fast.cli.app"], check=True)
    start_up = time.perf_counter() - began  # a busy machine takes many times as long as an idle one
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # jobs in the background ignore it
    )
    time.sleep(5 + 3 * start_up)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
