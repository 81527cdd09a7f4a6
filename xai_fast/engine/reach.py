"""Whether any gradient of a score can reach the input or a layer: where none can, a map of zeros would be a lie."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, NoReturn

from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import get_gradient_edge

# Autograd leads gradients through these, all of them zero: piecewise constant functions.
from xai_fast.core import autograd

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


def reaches(gradient: Tensor, scores: Tensor, at: Tensor) -> bool:
    """Whether `gradient`, of `scores` by `at`, is zero at most because the network does not answer."""
    if gradient.is_cpu:
        return bool(gradient.any()) or leads_back(scores, at)
    # To read what a GPU found is to wait for it, which the graph, known to the host, mostly spares.
    return leads_back(scores, at) or bool(gradient.any())


def leads_back(scores: Tensor, at: Tensor, cut: Collection[Any] = ()) -> bool:
    """Whether the graph behind `scores` leads to `at` by functions that are not constant piece by piece.

    Asked where a gradient is zero everywhere, to tell a network that does not answer from one that cannot.

    Args:
        scores: what the gradient is of.
        at: by what it is taken.
        cut: nodes of the graph that lead nothing on.
    """
    wanted = get_gradient_edge(at).node
    return any(node is wanted for node in _behind(scores, cut))


def returning_none(scores: Tensor, at: Tensor) -> set[Any]:
    """The user's own functions behind `scores` whose backward returns nothing; runs one backward.

    What stands before them in the forward may make zeros of that nothing.
    """
    own = [node for node in _behind(scores, ()) if isinstance(node, BackwardCFunction)]
    found: set[Any] = set()

    def watch(node: Any) -> Callable[..., None]:
        return lambda given, _arrived: found.add(node) if all(part is None for part in given) else None

    handles = [node.register_hook(watch(node)) for node in own]
    try:
        autograd.grad(scores.sum(), at, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _behind(scores: Tensor, cut: Collection[Any]) -> Iterator[Any]:
    """Every node that a gradient of the scores can come to, other than zero by what lies between."""
    waiting: list[Any] = [scores.grad_fn]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        if not (node in cut or node.name().startswith(_FLAT) or getattr(node, "_saved_rounding_mode", None)):
            waiting += [following for following, _ in node.next_functions]
