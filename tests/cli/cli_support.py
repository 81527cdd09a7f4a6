"""A model in a file, small enough that what a command costs is the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner, Result

from xai_fast.cli.app import app

MODELS = """
import sys
import torch
from xai_fast import Preprocess

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))

def _made(model):
    return model, Preprocess(resize=16, crop=16), ("a", "b", "c")

def _raises(error):
    net = Net()

    def model(x):
        if float(x[0].mean()) < -1.5:
            raise error("a dark\\nimage")
        return net(x)

    return _made(model)

class Odd(BaseException):
    pass

class Mute(Exception):
    def __str__(self):
        raise KeyError(self.args)

def good(): return _made(Net())
def whole(): return Net(), Preprocess(resize=None, crop=None), ("a", "b", "c")
def runtime_error(): return _raises(RuntimeError)
def key_error(): return _raises(KeyError)
def system_exit(): return _raises(SystemExit)
def mute(): return _raises(Mute)
def says_nothing(): raise Mute
def ends(): sys.exit(0)
def fails(): return 1 / 0
def oddly(): raise Odd
def nothing(): return None
"""


def write_models(folder: Path) -> Path:
    path = folder / "small_models.py"
    path.write_text(MODELS)
    return path


def picture(seed: int = 0, size: tuple[int, int] = (24, 20)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])
