"""What one comparison of methods is: its method, network, input, library, settings, and what an issue asks of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from peers import Peer
from torch import Tensor, nn

import xai_fast as xf

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

Model = nn.Module | xf.Engine
Method = Callable[[Model], Any]


@dataclass(frozen=True)
class Part:
    """How a peer whose one call takes minutes is timed: on some of the units that its loop runs over.

    The seconds of a whole call are those of a call with no unit, plus what `units` add to it times `whole / units`.
    The peer's call takes the number of units as a third argument.

    Attributes:
        units: that are timed; a divisor of `whole`, and a multiple of every setting of the sweep where `batched`.
        whole: units of a whole call.
        unit: what one is called.
        batched: the setting is how many units run together; False where each unit has batches of its own.
    """

    units: int
    whole: int
    unit: str = "channels"
    batched: bool = True

    def __post_init__(self) -> None:
        assert self.whole % self.units == 0, "a last batch that is smaller would cost other than the ones that count"


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: for the command line and the records.
        network: a torchvision name, awakened.
        method: makes our method for an engine or a model.
        library: name and version source of the peer.
        peer: the peer, for a model of its own and a setting.
        default: the library's own setting.
        sweep: settings of which the best counts; (default,) where the library has none.
        size: side of the square input, in pixels.
        batch: number of photographs.
        bar: warm ratio that an issue asks for over the best setting; None where none does.
        bar_default: likewise over the library's default setting.
        bar_growth: bytes that our first call may add to the peak of memory; None where no issue asks.
        plan: of our engine.
        part: the share of the peer's work that is timed; None for whole calls.
        scaled: the library scales each map to [0, 1], so ours and the truth are scaled likewise before errors are read.
        dense: the method asks the whole model about every row, so that a floor means something.
        precise: our method on a coarser grid, for the comparison with float64; None to use `method`.
        precise_peer: the peer likewise.
        precise_size: side of the input for the comparison with float64; None to use `size`.
        same_draws: the peer where both sides draw, for the comparison with float64: on what our method draws.
        outputs: the highest scores, how many of which are explained at once.
        notes: conditions that belong to the figures.
    """

    name: str
    network: str
    method: Method
    library: str
    peer: Peer
    default: int = 1
    sweep: tuple[int, ...] = (1,)
    size: int = 224
    batch: int = 1
    bar: float | None = None
    bar_default: float | None = None
    bar_growth: float | None = None
    plan: Literal["auto", "dense", "tail"] = "auto"
    part: Part | None = None
    scaled: bool = False
    dense: bool = True
    precise: Method | None = None
    precise_peer: Peer | None = None
    precise_size: int | None = None
    same_draws: Peer | None = None
    outputs: int = 1
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        assert self.default in self.sweep
        part = self.part
        assert part is None or not part.batched or all(part.units % setting == 0 for setting in self.sweep)


def network(case: Case) -> nn.Module:
    """The case's network, awake, in eval mode; a fresh copy."""
    from networks import awakened

    return awakened(case.network)


def inputs(case: Case, size: int | None = None) -> Tensor:
    """The case's photographs, normalised: (batch, 3, size, size)."""
    from networks import photos

    return photos(case.batch, size or case.size)


def targets(model: nn.Module, x: Tensor, outputs: int = 1) -> Tensor:
    """The predicted classes (N,), or the `outputs` highest (N, outputs), settled once: both sides explain the same."""
    with torch.no_grad():
        return model(x).topk(outputs).indices.squeeze(1)
