"""Whether all that lies between an input and an output is linear or follows a rule: told from the graph of autograd."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from xai_fast.core.verify import floats
from xai_fast.engine.reach import leads_back

_MOVES = frozenset(
    (
        *("View", "UnsafeView", "ReshapeAlias", "AsStrided", "Transpose", "Permute", "T", "MT", "Slice", "Select"),
        *("Cat", "Stack", "Unbind", "Split", "SplitWithSizes", "Expand", "Clone", "ToCopy", "Alias", "Index"),
        *("IndexSelect", "Gather", "Squeeze", "Unsqueeze", "Roll", "Flip", "Repeat", "Diagonal", "Unfold", "Im2Col"),
        *("PixelShuffle", "PixelUnshuffle", "CopySlices", "CopyBackwards", "ConstantPadNd", "ReflectionPad1D"),
        *("ReflectionPad2D", "ReflectionPad3D", "ReplicationPad1D", "ReplicationPad2D", "ReplicationPad3D"),
        *("MaskedFill", "Where", "Unflatten", "AccumulateGrad", "BackwardHookFunction"),
    )
)
_ADDS = frozenset(
    (
        *("Add", "Sub", "Rsub", "Neg", "Mean", "Sum", "AvgPool1D", "AvgPool2D", "AvgPool3D", "AdaptiveAvgPool1D"),
        *("AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "MkldnnAdaptiveAvgPool2D", "UpsampleNearest1D"),
        *("UpsampleNearest2D", "UpsampleNearest3D", "UpsampleLinear1D", "UpsampleBilinear2D", "UpsampleTrilinear3D"),
        *("UpsampleBicubic2D", "UpsampleBilinear2DAa", "UpsampleBicubic2DAa", "Col2Im", "NativeBatchNorm"),
        *("CudnnBatchNorm", "MiopenBatchNorm", "Tril", "Triu"),
    )
)
# Linear on either side of a kink, and 0 at 0.
_PIECEWISE = frozenset(
    (
        *("Relu", "LeakyRelu", "Threshold", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D"),
        *("AdaptiveMaxPool3D", "MkldnnMaxPool2D", "Amax"),
    )
)
# Which inputs of a product are its factors.
_FACTORS = {
    **dict.fromkeys(("Mul", "Mm", "Bmm", "Mv", "Dot", "Convolution", "Div"), (0, 1)),
    **dict.fromkeys(("Addmm", "Baddbmm"), (1, 2)),
}
_RULED = frozenset(("Half", "Softmax"))
_NAME = re.compile(r"(\w+::)*_?(?P<function>\w+?)(Backward)?\d*")


def uncovered(scores: Tensor, raw: Any, at: Sequence[Tensor]) -> str | None:
    """What between `at` and a raw output AttnLRP has no rule for; None where everything is linear or has one.

    Args:
        scores: what was read from the raw output, in whatever way.
        raw: the output of a forward that ran inside `relevance`.
        at: leaves that it depends on.
    """
    leaves = {get_gradient_edge(leaf).node for leaf in at}
    of_scores = set(_behind([scores.grad_fn]))
    ends = {part.grad_fn for part in floats(raw)} & of_scores
    if any(leads_back(scores, leaf, cut=ends) for leaf in at):
        ends = {scores.grad_fn}  # the raw output is of a kind that is not looked into
    between = _behind([*ends])
    if any(_function(node) == "AccumulateGrad" and node not in leaves for node in between):
        return "weights that ask for gradients, which cannot be told from what depends on the input"
    return next((reason for reason in map(_reason, between) if reason is not None), None)


def _behind(nodes: list[Any]) -> list[Any]:
    """These steps of a backward and all that follow, each once."""
    waiting, seen = [*nodes], dict[Any, None]()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen[node] = None
            waiting += [following for following, _ in node.next_functions]
    return list(seen)


def _reason(node: Any) -> str | None:
    """Why a step is not covered; None where it is."""
    name = _function(node)
    if name in _FACTORS:
        return _of_product(node, name)
    if name not in _MOVES | _ADDS | _PIECEWISE | _RULED:
        return f"{node.name()}, for which there is no rule"
    if getattr(node, "_saved_training", False):
        return "batch normalisation by statistics of what it is given"
    return None


def _function(node: Any) -> str:
    """Its function, such as Mul for MulBackward0."""
    found = _NAME.fullmatch(node.name())
    return node.name() if found is None else found["function"]


def _of_product(node: Any, name: str) -> str | None:
    """Why no rule covers a product; None where one factor is a constant, or its factors are halved."""
    at = [node.next_functions[i][0] for i in _FACTORS[name] if i < len(node.next_functions)]
    factors = [factor for factor in at if factor is not None]
    if name == "Div":
        return None if at[1:] in ([], [None]) else "a division by what depends on the input"
    if len(factors) < 2 or all(map(_is_half, factors)):
        return None
    return f"{node.name()} of what both depend on the input, in a form that is not taken apart"


def _is_half(node: Any) -> bool:
    while _function(node) in _MOVES and len(node.next_functions) == 1 and node.next_functions[0][0] is not None:
        node = node.next_functions[0][0]
    return _function(node) == "Half"
