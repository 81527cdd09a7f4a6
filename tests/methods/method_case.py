"""A method under one choice of settings, as the contract tests take it, and the models that have a closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import xai_fast as xf


@dataclass(frozen=True, eq=False)
class Case:
    """A method under one choice of settings.

    Attributes:
        method: the registered name.
        replica: the paper, slowly: (model, inputs, targets, **settings) to float64 values.
        settings: keyword arguments of the constructor, and of the replica.
        call: keyword arguments of `attribute`, and of the replica.
        wraps: the case of the method that this one is given in place of a model; None where it is given the model.
    """

    method: str
    replica: Callable[..., torch.Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    wraps: Case | None = None

    @property
    def needs_graph(self) -> bool:
        """Whether the method refuses models that cannot be captured."""
        return self.method in ("DeepLift", "DeepLiftShap")

    @property
    def needs_attention(self) -> bool:
        """Whether the method is about attention among tokens; all but AttnLRP refuse models without."""
        return self.method in ("AttentionRollout", "AttnLRP", "GradientAttentionRollout", "LeGrad")

    @property
    def scores_per_row(self) -> int:
        """How many answers of the model are scored per row: one, or one for each of the two blocks of `Attends`."""
        return 2 if self.method == "LeGrad" else 1

    @property
    def needs_truth(self) -> bool:
        """Whether the target can be nothing but the true class."""
        return self.method == "ErrorAttribution"

    @property
    def needs_classes(self) -> bool:
        """Whether the target can be no function, because class scores are mixed."""
        return self.method in ("FinerCAM", "ClassAttention")

    @property
    def repeats(self) -> bool:
        """Whether a draw may repeat another, which is not run again: fewer rows than were announced."""
        return self.method in ("KernelShap", "Lime", "ShapleySampling", "ScoreCAM", "ISCAM")

    @property
    def shares_rows(self) -> bool:
        """Whether rows that are the same run once, so that fewer run than were announced."""
        return self.needs_graph or self.repeats

    @property
    def follows_answers(self) -> bool:
        """Whether answers decide which rows run next, so that other targets beside one change its map."""
        return self.method == "PartitionShap"

    @property
    def takes_curvature(self) -> bool:
        """Whether a second pass runs backward, which reaches nothing where a network is piecewise linear."""
        return self.method == "ShapleyCAM"

    @property
    def class_specific(self) -> bool:
        """Whether another target gives another map."""
        return xf.methods()[self.method].class_specific

    @property
    def weighs_by_softmax(self) -> bool:
        """Whether channels are weighted by a softmax of scores, which is never 0."""
        return self.method in ("ScoreCAM", "SSCAM", "ISCAM")

    @property
    def averages_scores(self) -> bool:
        """Whether a map without sign is a mean of scores, which is below 0 where they are."""
        return self.method in ("RISE", "DRISE")

    def target(self, inputs: torch.Tensor) -> list[int] | None:
        """What is explained where a test does not care: true classes for the method that must be told them."""
        return [1] * len(inputs) if self.needs_truth else None

    def __str__(self) -> str:
        given = [f"{key}={_in_short(value)}" for key, value in {**self.settings, **self.call}.items()]
        inner = [] if self.wraps is None else [str(self.wraps)]
        return f"{self.method}({','.join([*inner, *given])})".replace(" ", "")

    def on(self, model: Any) -> Any:
        """The method on a model or an engine."""
        return getattr(xf, self.method)(model if self.wraps is None else self.wraps.on(model), **self.settings)

    def expected(self, model: Any, inputs: torch.Tensor, targets: list[int]) -> torch.Tensor:
        """What the replica says."""
        wrapped = {} if self.wraps is None else {"of": self.wraps.expected}
        return self.replica(model, inputs, targets, **wrapped, **self.settings, **self.call)


def cases(method, replica, *rows, wraps=None):
    """A case per row of settings; `resolution` among them is an argument of the call."""
    return [
        Case(
            method,
            replica,
            {key: value for key, value in row.items() if key != "resolution"},
            {key: value for key, value in row.items() if key == "resolution"},
            wraps,
        )
        for row in rows
    ]


def _in_short(value):
    return "x".join(map(str, value.shape)) if isinstance(value, torch.Tensor) else value


class Linear(nn.Module):
    """s = W x + b over all elements of the input, as a 1x1 convolution and its mean could not be: W is (K, C, H, W)."""

    def __init__(self, shape, classes=4):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(classes, *shape, generator=generator))
        self.bias = nn.Parameter(torch.randn(classes, generator=generator))

    def forward(self, x):
        return torch.einsum("nchw,kchw->nk", x, self.weight) + self.bias


def pooled_head(shape, classes=4, channels=5):
    """The network that CAM was drawn for: features, their mean over positions, a linear layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return nn.Sequential(
            nn.Conv2d(shape[0], channels, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
        )
