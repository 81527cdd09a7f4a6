"""One bad image, whatever is bad about it, costs itself: a line, exit code 3, and the page of the rest."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from cli_support import picture, run, write_models
from PIL import Image, ImageFile

RAMP = np.add.outer(np.arange(24), np.arange(24)) / 46


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def numbers(values: np.ndarray, kind: str = "TIFF") -> bytes:
    return encoded(Image.fromarray(values), kind)


def in_alpha() -> bytes:
    image = Image.new("LA", (24, 24))
    image.putalpha(Image.linear_gradient("L").resize((24, 24)))
    return encoded(image, "PNG")


GREY = Image.fromarray((RAMP * 255).astype(np.uint8))
GOOD = {
    "float.tif": lambda: numbers(RAMP.astype(np.float32)),
    "sixteen.png": lambda: numbers((RAMP * 65535).astype(np.uint16), "PNG"),
    "sixteen.tif": lambda: numbers((RAMP * 65535).astype(np.uint16)),
    "stated.tif": lambda: encoded(
        Image.fromarray((RAMP * 1000).astype(np.float32)), "TIFF", tiffinfo={340: 0.0, 341: 1000.0}
    ),
    "la.png": lambda: encoded(GREY.convert("LA"), "PNG"),
    "palette.png": lambda: encoded(GREY.convert("P"), "PNG", transparency=b"\0" * 99),
    "cmyk.jpg": lambda: encoded(GREY.convert("CMYK"), "JPEG"),
    "lab.tif": lambda: encoded(GREY.convert("RGB").convert("LAB"), "TIFF"),
    "animated.gif": lambda: encoded(GREY, "GIF", save_all=True, append_images=[GREY.rotate(90)]),
    "animated.png": lambda: encoded(GREY, "PNG", save_all=True, append_images=[GREY.rotate(90)]),
}
BAD = {
    "empty.png": (lambda: b"", "empty"),
    "text.jpg": (lambda: b"no picture\n" * 99, "not an image"),
    "cut.jpg": (lambda: encoded(picture(), "JPEG")[:400], "damaged"),
    "cut.png": (lambda: encoded(picture(), "PNG")[:400], "damaged"),
    "cut.webp": (lambda: encoded(picture(), "WEBP")[:200], "damaged"),
    "cut.gif": (lambda: encoded(picture(), "GIF")[:900], "damaged"),
    "cut.tif": (lambda: encoded(picture(), "TIFF")[:500], ""),
    "broken.png": (lambda: encoded(picture(), "PNG")[:100] + b"\xff" * 900, "damaged"),
    "huge.ppm": (lambda: b"P6 40000 40000 255\n" + b"\0" * 99, "than a photograph has"),
    "tall.ppm": (lambda: b"P6 1 99000000 255\n" + b"\0" * 99, "than a photograph has"),
    "bytes_as_floats.tif": (lambda: numbers((RAMP * 255).astype(np.float32)), "from 0 to 255"),
    "dark_floats.tif": (lambda: numbers((RAMP * 1e-3).astype(np.float32)), "black"),
    "negative.tif": (lambda: numbers((RAMP - 0.5).astype(np.float32)), "-0.5"),
    "nan.tif": (lambda: numbers(np.where(RAMP > 0.9, np.nan, RAMP).astype(np.float32)), "NaN"),
    "integers.tif": (lambda: numbers((RAMP * 255).astype(np.int32)), "mode I"),
    "twelve_bits.png": (lambda: numbers((RAMP * 4095).astype(np.uint16), "PNG"), "black"),
    "in_alpha.png": (in_alpha, "transparency"),
    "escape\x1b[31m.png": (lambda: b"no", r"escape\x1b[31m.png"),
    "two\nlines.png": (lambda: b"no", r"two\nlines.png"),
    "turned\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe.png": (lambda: b"no", r"turned\u202egnp.exe.png"),
    "[red]<b>.png": (lambda: b"no", "[red]<b>.png"),
    os.fsdecode(b"caf\xe9.png"): (lambda: b"no", r"caf\udce9.png"),
}  # fmt: skip


def model(tmp_path: Path, name: str = "good") -> list[str]:
    return ["--method", "GradCAM", "--model", f"{write_models(tmp_path)}:{name}", "--out", str(tmp_path / "out")]


def test_bad_files_beside_good_ones(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, make in GOOD.items():
        (folder / name).write_bytes(make())
    for name, (make, _) in BAD.items():
        (folder / name).write_bytes(make())
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    more = {"folder.png": "is a folder", "pipe.png": "no ordinary file", "missing.png": "no such file"}
    bad = {name: said for name, (_, said) in BAD.items()} | more
    result = run(*(folder / name for name in [*bad, *GOOD]), *model(tmp_path))
    assert result.exit_code == 3, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == len(bad)
    for line, (_, said) in zip(lines, bad.items(), strict=True):
        assert line.startswith("error: ")
        assert said in line
    assert not set(result.output) & {"\x1b", "\N{RIGHT-TO-LEFT OVERRIDE}"}
    assert f"{len(GOOD)} of {len(GOOD) + len(bad)} images explained" in result.stdout
    page = (tmp_path / "out" / "index.html").read_text()
    assert not set(page) & {"\x1b", "\N{RIGHT-TO-LEFT OVERRIDE}"}
    assert page.count("<li>") == len(bad)
    # All good ones but the CMYK JPEG are one ramp, so that what the model saw is known.
    for stem in ("float", "sixteen", "sixteen-2", "stated", "la", "palette", "animated", "animated-2"):
        seen = np.asarray(Image.open(tmp_path / "out" / f"{stem}.photo.png").convert("RGB"), dtype=float)
        expected = np.asarray(GREY.resize((16, 16), Image.Resampling.BILINEAR), dtype=float)[..., None]
        assert np.abs(seen - expected).max() <= 2, stem


@pytest.mark.parametrize(
    "error", [IndexError, KeyError, ZeroDivisionError, struct.error, RecursionError, MemoryError, AssertionError]
)
def test_any_error_of_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    load = ImageFile.ImageFile.load

    def fails(image):
        if image.filename.endswith("0.png"):
            raise error("in the decoder")
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", fails)
    for n in range(2):
        picture(n).save(tmp_path / f"{n}.png")
    result = run(tmp_path / "0.png", tmp_path / "1.png", *model(tmp_path))
    assert result.exit_code == 3, result.output
    assert result.stderr.count("error: ") == 1
    assert "1 of 2 images explained" in result.stdout


@pytest.mark.parametrize("name", ["runtime_error", "key_error", "system_exit", "mute"])
@pytest.mark.parametrize("first", [True, False])
def test_any_error_of_the_model(tmp_path: Path, name: str, first: bool) -> None:
    """On one image; whether it comes first, where settings are checked, makes no difference."""
    Image.new("RGB", (20, 20)).save(tmp_path / "dark.png")
    picture().save(tmp_path / "fine.png")
    paths = [tmp_path / "dark.png", tmp_path / "fine.png"]
    options = ["--method", "Occlusion", "--set", "window=8", *model(tmp_path, name)[2:]]
    result = run(*(paths if first else paths[::-1]), *options, "--target", "b")
    assert result.exit_code == 3, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "dark.png: Occlusion: " in line
    assert "1 of 2 images explained" in result.stdout


def test_settings_that_do_not_fit_one_image_cost_that_image(tmp_path: Path) -> None:
    picture(0, (10, 10)).save(tmp_path / "small.png")
    picture(1, (30, 30)).save(tmp_path / "large.png")
    options = [*model(tmp_path, "whole")[2:], "--method", "Occlusion", "--set", "window=20"]
    result = run(tmp_path / "small.png", tmp_path / "large.png", *options)
    assert result.exit_code == 3, result.output
    assert "`window` 20" in result.stderr
    assert run(tmp_path / "small.png", *options).exit_code == 2
