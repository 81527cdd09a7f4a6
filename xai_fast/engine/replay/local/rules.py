"""Which rule lets a change pass one step inside its box; a step without one makes what it touches dense."""

from __future__ import annotations

from xai_fast.graph.fused import FusedAttention
from xai_fast.graph.kinds import Kind
from xai_fast.graph.steps import Step

from . import pooling, positions, resampling, views, windows
from .rule import Rule, Scene

_MAKERS: dict[str, views.Maker] = {
    **views.VIEWS,
    **dict.fromkeys(positions.CHANNEL_OPERATIONS, positions.over_channels),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), windows.convolution),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), pooling.maximum),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), pooling.mean),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), resampling.transposed),
    **dict.fromkeys(("interpolate", "upsample"), resampling.interpolated),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), resampling.interpolated),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), resampling.shuffled),
    **dict.fromkeys(("cat", "concat", "concatenate"), positions.concatenated),
    **dict.fromkeys(("batch_norm", "prelu", "channel_shuffle"), positions.channelwise),
    "pad": windows.padded,
}
_JOINS = ("add", "sub", "mul", "div", "truediv", "rsub", "pow", "maximum", "minimum", "addcmul", "where", "lerp",
          "gt", "lt", "ge", "le", "eq", "ne")  # fmt: skip


def rule_of(step: Step, scene: Scene) -> Rule | None:
    """The rule of a step that reads a value which differs inside a box; None where there is none."""
    if isinstance(step.call, FusedAttention):
        return None
    operation = step.operation
    if operation == "getitem" and step.reads and scene.shape(step.reads[0]) is None:
        return positions.part(step, scene)
    if operation in _MAKERS:
        return _MAKERS[operation](step, scene)
    if operation in _JOINS:
        return positions.joined(step, scene)
    if step.kind is Kind.ELEMENTWISE:
        return positions.elementwise(step, scene)
    return None
