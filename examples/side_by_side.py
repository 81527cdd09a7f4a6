"""Scripts on captum, torchcam, grad-cam, shap and lime, run as they are and accelerated: both pictures, side by side.

    python examples/side_by_side.py --out side_by_side.png
    python examples/side_by_side.py --script a3_occlusion --script c3_homework

The scripts in `originals/` know nothing of acceleration. Each runs twice in this process, the second time after
`xai_fast.accelerate()`; left is what the library drew, right what it drew then, with the seconds that each took and
how many calls ran on our engine. The first script that needs it trains a small network, which does not count.
"""

from __future__ import annotations

import argparse
import io
import runpy
import sys
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
from _small_cnn import load
from PIL import Image

from xai_fast import accelerate
from xai_fast.report import Panel, Row, figure, save_png

SCRIPTS = Path(__file__).resolve().parent / "originals"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*_*.py"))
LIBRARIES = {
    "a1_class_activation": "torchcam",
    "a2_factorization": "grad-cam",
    "a3_occlusion": "captum",
    "a7_shapley": "shap",
    "a8_words": "lime",
    "a9_regions": "lime",
    "c3_homework": "lime",
}


def main(arguments: list[str] | None = None) -> Path:
    """Writes the picture and returns its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("side_by_side.png"), help="the picture to write")
    parser.add_argument("--coarse", action="store_true", help="fewer steps and samples, for a quick look")
    parser.add_argument("--script", action="append", choices=NAMES, help="default: all")
    options = parser.parse_args(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    load(options.out.parent, options.coarse)

    rows, worst, calls = [], 0.0, 0
    for name in options.script or NAMES:
        picture, seconds = ran(name, options, "plain")
        accelerate.reset()
        with accelerate.accelerate():
            other, faster = ran(name, options, "accelerated")
        report = accelerate.report()
        apart = float(np.abs(np.asarray(picture, dtype=float) - np.asarray(other, dtype=float)).mean())
        worst, calls = max(worst, apart), calls + report.accelerated
        said = f"{faster:.1f} s; on our engine {report.accelerated} of {report.accelerated + report.passed_on} calls"
        title = f"{name.replace('_', ' ')}, {LIBRARIES[name]}"
        rows.append(Row([Panel(picture, title, f"{seconds:.1f} s"), Panel(other, "accelerated", said)]))
        print(report)
    path = save_png(figure(rows, width=640), options.out)
    print(f"{calls} calls on our engine; pictures differ by at most {worst:.2f} of 255 on average; wrote {path}")
    return path


def ran(name: str, options: argparse.Namespace, side: str) -> tuple[Image.Image, float]:
    """The picture that a script draws, and the seconds that it took."""
    out = options.out.with_name(f"{options.out.stem}_{name}_{side}.png")
    before, sys.argv = sys.argv, [f"{name}.py", "--out", str(out), *(["--coarse"] if options.coarse else [])]
    sys.path.insert(0, str(SCRIPTS))
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            began = time.perf_counter()
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
            seconds = time.perf_counter() - began
    finally:
        sys.path.remove(str(SCRIPTS))
        sys.argv = before
    with Image.open(out) as picture:
        return picture.convert("RGB"), seconds


if __name__ == "__main__":
    main()
