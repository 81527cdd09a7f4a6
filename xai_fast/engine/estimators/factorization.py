"""Non-negative matrix factorisation: activations as a few concepts, each with a strength at every position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xai_fast.core.random import uniforms

_MOST_ROUNDS = 300
_LOOKED_AT = 10  # rounds between two looks at the error, each of which waits for the device
_SETTLED = 1e-6  # of the squared norm: the least fall of the error in as many rounds that goes on
_BESIDE = 8  # further directions that make the leading ones of a random projection accurate
_POWERS = 4


@dataclass(frozen=True)
class Factors:
    """What a table (P, C) without negative entries is nearly the product of.

    Attributes:
        strengths: (P, k), of each concept at each position, none negative.
        concepts: (k, C), none negative.
        explained: 1 − |V − W H|² / |V|², the share of the table's squares that the product explains.
    """

    strengths: Tensor
    concepts: Tensor
    explained: float


@torch.no_grad()
def factorized(table: Tensor, count: int, seed: int) -> Factors:
    """The factors of least squared error that hierarchical alternating least squares finds.

    Starts from the leading singular vectors, of which the larger of the positive and the negative part is taken
    (Boutsidis and Gallopoulos 2008, doi:10.1016/j.patcog.2007.09.010); then the strengths of every concept, and every
    concept itself, become their own best, the others held fixed (Cichocki and Phan 2009,
    doi:10.1587/transfun.E92.A.708). The same for the same table, whatever ran before. The strongest concept comes
    first: by the norm of what each adds to the product.

    Args:
        table: V (P, C), float32 or wider, none negative.
        count: k, at most P and C.
        seed: of the random projection by which the singular vectors are found.
    """
    strengths, concepts = _started(table, count, seed)  # (k, P) and (k, C): rows, which lie together in memory
    total = table.square().sum()
    before = float("inf")
    for number in range(_MOST_ROUNDS):
        _improve(strengths, concepts @ table.T, concepts @ concepts.T)
        products, gram = strengths @ table, strengths @ strengths.T
        _improve(concepts, products, gram)
        if number % _LOOKED_AT == _LOOKED_AT - 1:
            error = float(total - 2 * (products * concepts).sum() + (gram * (concepts @ concepts.T)).sum())
            if before - error <= _SETTLED * float(total):
                break
            before = error
    order = (strengths.norm(dim=1) * concepts.norm(dim=1)).argsort(descending=True, stable=True)
    strengths, concepts = strengths[order].T, concepts[order]
    error = (table - strengths @ concepts).square().sum()
    explained = 1 - float(error / total) if float(total) > 0 else 1.0
    return Factors(strengths, concepts, explained)


def _improve(factor: Tensor, products: Tensor, gram: Tensor) -> None:
    """Every row of a factor (k, ·) at its best, in place: `products` is the other times V, `gram` the other's own.

    A row whose counterpart is nothing stays as it is.
    """
    scale = gram.diagonal()[:, None]
    inverse = torch.where(scale > 0, 1 / scale, 0.0)
    for row, product, own in zip(factor, products * inverse, gram * inverse, strict=True):
        row.add_(torch.addmv(product, factor.T, own, alpha=-1)).clamp_min_(0)


def _started(table: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Strengths (k, P) and concepts (k, C) to start from."""
    width = min(count + _BESIDE, *table.shape)
    drawn = uniforms(seed, torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long), table.shape[1] * width)
    span = table @ (drawn.view(table.shape[1], width).to(table) - 0.5)
    for _ in range(_POWERS):
        span = table @ (table.T @ torch.linalg.qr(span).Q)
    basis = torch.linalg.qr(span).Q
    left, values, right = torch.linalg.svd(basis.T @ table, full_matrices=False)
    left = basis @ left[:, :count]
    strengths, concepts = [], []
    for u, s, v in zip(left.T, values[:count], right[:count], strict=True):
        parts = [(u.clamp_min(0), v.clamp_min(0)), ((-u).clamp_min(0), (-v).clamp_min(0))]
        norms = torch.stack([a.norm() * b.norm() for a, b in parts])
        a, b = parts[int(norms.argmax())]
        scale = (s * norms.amax()).sqrt()
        strengths.append(a / a.norm().clamp_min(torch.finfo(a.dtype).tiny) * scale)
        concepts.append(b / b.norm().clamp_min(torch.finfo(b.dtype).tiny) * scale)
    return torch.stack(strengths), torch.stack(concepts)
