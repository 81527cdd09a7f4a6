"""Folders of photographs, sound and hostile, and a model that takes next to no time."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from xai_fast import Preprocess


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.second, self.head = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3), torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.conv(x)))).mean((2, 3)))


PREPROCESS = Preprocess(resize=16, crop=16)
MODEL_FILE = """
from xai_fast import Preprocess
from photo_folders import Net

def net():
    return Net(), Preprocess(resize=16, crop=16), ("cat", "dog", "eel")
"""


def photograph(seed=0, size=(24, 20)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def sound(folder: Path, count=10) -> Path:
    for n in range(count):
        path = folder / ("cat", "dog", "eel")[n % 3] / f"{n:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(n).save(path)
    return folder


def hostile(folder: Path) -> dict[str, str]:
    """What each of them should be said to be, by its name."""
    folder.mkdir(exist_ok=True)
    said = {}

    def add(name, content, words):
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            content.save(folder / name)
        said[name] = words

    whole = folder / "whole.jpg"
    photograph(size=(240, 200)).save(whole)
    content = whole.read_bytes()
    whole.unlink()
    add("truncated.jpg", content[: len(content) // 2], "damaged or unreadable image")
    add("empty.jpg", b"", "the file is empty")
    add("text.jpg", b"this is no image, whatever its name says\n", "not an image that Pillow can read")
    add("bomb.png", png(60_000, 60_000), "more pixels than a photograph has")
    add("none.png", png(0, 0), "image")
    add("picture.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not an image that Pillow")
    add("line\nbreak.jpg", b"\xff", "not an image")
    add("</script><img src=x onerror=alert(1)>.jpg".replace("/", "\u2215"), content, "")
    add("long.png", Image.new("RGB", (20_000, 2), "red"), "")
    add("grey alpha.png", Image.new("LA", (20, 20), (9, 99)), "")
    add("deep.png", Image.fromarray(np.full((20, 20), 40_000, np.uint16)), "")
    add("cmyk.jpg", Image.new("CMYK", (20, 20)), "")
    os.symlink("itself.jpg", folder / "itself.jpg")
    said["itself.jpg"] = "no such file"
    (folder / "inside").mkdir()
    os.symlink("..", folder / "inside" / "above")
    said["inside/above"] = "is a folder"
    os.mkfifo(folder / "waits.jpg")
    said["waits.jpg"] = "is no ordinary file"
    if os.geteuid():
        add("secret.jpg", content, "cannot be read (Permission denied)")
        (folder / "secret.jpg").chmod(0)
    (folder / "notes.txt").write_text("not named like an image")
    return said


def png(width, height):
    """A file that says it is so large, with next to nothing in it."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
