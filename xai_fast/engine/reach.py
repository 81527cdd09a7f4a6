"""Whether any gradient of a score can reach the input or a layer: where none can, a map of zeros would be a lie."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

# Autograd leads gradients through these, all of them zero: piecewise constant functions.
_FLAT = ("Round", "Floor", "Ceil", "Trunc", "Sign", "Sgn", "Heaviside")


def refuse_unreached(where: str) -> NoReturn:
    """Raises the error that says so.

    Args:
        where: what no gradient reaches, as in "the input" or "layer 'features.3'".
    """
    raise ValueError(
        f"`target` does not depend differentiably on {where}: nothing leads from there to the score, or what does cuts "
        "the gradient (detach, no_grad, argmax, a comparison, rounding, quantisation, a function without a backward). "
        "Choose another target or layer, or a method that asks for scores alone, such as Occlusion or RISE"
    )


def leads_back(scores: Tensor, at: Tensor) -> bool:
    """Whether the graph behind `scores` leads to `at` by functions that are not constant piece by piece.

    Asked where a gradient is zero everywhere, to tell a network that does not answer from one that cannot.
    """
    wanted = get_gradient_edge(at).node
    waiting: list[Any] = [scores.grad_fn]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is wanted:
            return True
        if node is None or node in seen:
            continue
        seen.add(node)
        if not _flat(node):
            waiting += [following for following, _ in node.next_functions]
    return False


def _flat(node: Any) -> bool:
    return node.name().startswith(_FLAT) or getattr(node, "_saved_rounding_mode", None) is not None
