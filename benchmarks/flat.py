"""Whether an audit's memory grows with the number of images, of 200 sizes that follow each other at random.

usage: python benchmarks/flat.py [--images N...] [--json FILE]

Photographs go whole into a small network, so that every size is a shape of its own to the engine. Each number of images
is audited in a fresh process, whose peak of memory is stated (decoders are processes of their own).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from methods import save
from PIL import Image
from timing import peak

import xai_fast as xf

SIZES = [(width, height) for width in range(24, 44) for height in range(24, 34)]
METHODS = "GradCAM"


class Small(torch.nn.Module):
    """Two convolutions and a class score."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 16, 3)
        self.head = torch.nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 5)."""
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))


def write(folder: Path, count: int) -> None:
    """Files of all sizes in a random order; those of one size are one file under many names."""
    draws = np.random.default_rng(0)
    folder.mkdir()
    for number, (width, height) in enumerate(SIZES):
        pixels = draws.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder.parent / f"{number}.png")
    for n, number in enumerate(draws.integers(0, len(SIZES), count)):
        os.link(folder.parent / f"{number}.png", folder / f"{n:06d}.png")


def audited(count: int) -> None:
    """Prints what one audit in this process took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        write(folder, count)
        began = time.perf_counter()
        whole = xf.Preprocess(resize=None, crop=None)
        run = xf.audit(Small(), folder, methods=METHODS, out=Path(name) / "run", preprocess=whole, workers=1)
        seconds = time.perf_counter() - began
        assert run.counts == {"ok": count}
        found = {"peak_bytes": peak(), "seconds": seconds}
        print(json.dumps({"flat": METHODS, "images": count, "sizes": len(SIZES), **found}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.here:
        return audited(chosen.here)
    records = []
    for count in chosen.images:
        command = [sys.executable, __file__, "--here", str(count)]
        found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        records.append(json.loads(found.splitlines()[-1]))
        print(f"{count:6d} images: peak {records[-1]['peak_bytes'] / 2**20:.0f} MiB, {records[-1]['seconds']:.0f} s")
    if chosen.json:
        save(chosen.json, 1, records)
    return None


if __name__ == "__main__":
    main()
