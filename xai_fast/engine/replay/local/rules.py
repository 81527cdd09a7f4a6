"""Which rule lets a change pass one step inside its box; a step without one makes what it touches dense."""

from __future__ import annotations

from collections.abc import Callable

from xai_fast.graph.fused import FusedAttention
from xai_fast.graph.operation import Region
from xai_fast.graph.operations import known_of
from xai_fast.graph.steps import Step

from . import pooling, positions, resampling, views, windows
from .rule import Rule, Scene

RULES: dict[Region, Callable[[Step, Scene], Rule | None]] = {
    "elementwise": positions.elementwise,
    "channelwise": positions.channelwise,
    "join": positions.joined,
    "concatenation": positions.concatenated,
    "convolution": windows.convolution,
    "transposed convolution": resampling.transposed,
    "maximum pool": pooling.maximum,
    "mean pool": pooling.mean,
    "padding": windows.padded,
    "resampling": resampling.interpolated,
    "shuffle": resampling.shuffled,
    "reshape": views.reshaped,
    "permutation": views.permuted,
    "narrow": views.cut,
    "index": views.indexed,
    **positions.OVER_CHANNELS,
}


def rule_of(step: Step, scene: Scene) -> Rule | None:
    """The rule of a step that reads a value which differs inside a box; None where there is none."""
    if isinstance(step.call, FusedAttention):
        return None
    region = known_of(step.operation).region
    if region == "index" and step.reads and scene.shape(step.reads[0]) is None:
        return positions.part(step, scene)
    return RULES[region](step, scene) if region else None
