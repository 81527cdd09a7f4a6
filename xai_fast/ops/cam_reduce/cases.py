"""What cam_reduce is tested and timed on: last layers of known networks, and odd shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator

from xai_fast.ops._cases import Case
from xai_fast.ops._checks import FLOATING


def _case(
    name: str,
    shape: tuple[int, ...],
    targets: int,
    *,
    size: tuple[int, ...] | None = None,
    relu: bool = True,
    last: bool = False,
    workload: bool = False,
) -> Case:
    def build(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
        activations = torch.randn(shape, generator=generator).to(dtype)
        if last:
            activations = activations.contiguous(memory_format=torch.channels_last)
        weights = torch.randn(shape[0], targets, shape[1], generator=generator).to(dtype)
        return {"activations": activations, "weights": weights, "relu": relu, "size": size}

    return Case(name, build, FLOATING, workload)


def _sliced(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """Every second row and column of a larger map, as after cropping."""
    activations = torch.randn(2, 20, 11, 13, generator=generator).to(dtype)[:, 1::2, ::2, ::2]
    weights = torch.randn(2, 10, 3, generator=generator).to(dtype).transpose(1, 2)
    return {"activations": activations, "weights": weights, "size": (17, 9)}


def _tokens(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """The token grid of a vision transformer, class token left out, seen as a map."""
    tokens = torch.randn(2, 197, 48, generator=generator).to(dtype)[:, 1:]
    activations = tokens.unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    weights = torch.randn(2, 1, 48, generator=generator).to(dtype)
    return {"activations": activations, "weights": weights, "size": (56, 56)}


CASES = (
    _case("resnet50, one image", (1, 2048, 7, 7), 1, size=(224, 224), workload=True),
    _case("resnet50, NCHW", (8, 2048, 7, 7), 1, size=(224, 224), workload=True),
    _case("resnet50, NHWC", (8, 2048, 7, 7), 1, size=(224, 224), last=True, workload=True),
    _case("resnet50 layer3, five targets", (8, 1024, 14, 14), 5, size=(224, 224), last=True, workload=True),
    _case("vgg16, own grid", (8, 512, 14, 14), 1, workload=True),
    _case("no samples", (0, 4, 5, 5), 2, size=(9, 9)),
    _case("no targets", (2, 4, 5, 5), 0, size=(9, 9)),
    _case("no channels", (2, 0, 5, 5), 1, size=(9, 9)),
    _case("one pixel", (2, 5, 1, 1), 1, size=(4, 6)),
    _case("two channels", (2, 2, 5, 6), 2, size=(11, 7), last=True),
    _case("negative sums kept", (2, 33, 9, 10), 3, relu=False, size=(30, 31)),
    _case("smaller than the grid", (2, 33, 9, 10), 3, size=(4, 3), last=True),
    _case("many pixels", (1, 7, 40, 41), 2, size=(50, 60)),
    _case("signal", (2, 6, 20), 2, size=(50,)),
    _case("volume", (2, 6, 4, 5, 6), 2, size=(8, 9, 10)),
    Case("sliced", _sliced, FLOATING),
    Case("tokens", _tokens, FLOATING),
)
