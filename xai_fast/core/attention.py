"""Attention in a running forward: its probabilities shown, and replaced where that is wanted, whoever computes it.

Fused attention (`scaled_dot_product_attention`, `nn.MultiheadAttention` without weights) never has its probabilities in
memory. A mode that sees torch's functions as the model's own forward calls them computes them beside it, or in its
place, from what that is given; where a forward takes a softmax itself and multiplies values by it, that is what it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

# What hands a tensor on with the same numbers, in evaluation.
_SAME = frozenset(("dropout", "to", "type_as", "contiguous", "float", "half", "bfloat16", "double", "clone"))
_PRODUCTS = frozenset(("matmul", "bmm", "__matmul__", "einsum"))
_UNUSUAL = ("bias_k", "bias_v", "key_padding_mask", "static_k", "static_v")
_MHA = (
    *("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v"),
    *("add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias"),
)


@dataclass(frozen=True)
class Attended:
    """One attention of a forward.

    Attributes:
        shape: of its probabilities: (rows, heads, queries, keys), (rows, queries, keys) of one head, or another where
            what it attends to is no sequence of each row.
        kept: what was kept of the probabilities by which the model mixes values.
    """

    shape: tuple[int, ...]
    kept: Tensor


class AttentionWatch(TorchFunctionMode):
    """Runs every attention of a forward step by step, inside the block.

    Args:
        take: given the probabilities of each attention as they are computed, returns those that the values are mixed
            by in their place; None: they stay as they are, and where a mask or a gradient is asked for as well, they
            are only computed beside it, without gradient, and the model's own kernel answers.
        keep: what is kept of the probabilities; None: they themselves.

    Attributes:
        found: the attentions, in the order in which they ran.
        values: (rows, heads, keys, features) what the first of them mixes.
    """

    def __init__(
        self, take: Callable[[Tensor], Tensor] | None = None, keep: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.found: list[Attended] = []
        self.values: Tensor | None = None
        self._take, self._keep = take, keep
        self._waiting: dict[int, tuple[Tensor, Tensor]] = {}  # by id: what may turn out to mix values, as what it began

    def begin(self) -> None:
        """Another forward begins: what was found before is forgotten."""
        self.found.clear()
        self._waiting.clear()
        self.values = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            return self._multi_head(**dict(zip(_MHA, args, strict=False)), **kwargs)
        name, result = getattr(func, "__name__", ""), func(*args, **kwargs)
        if name == "softmax":
            return self._softmax(result, kwargs.get("dim", args[1] if len(args) > 1 else None))
        if self._waiting and name in _PRODUCTS:
            self._multiplied([part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)])
        elif name in _SAME and args and id(args[0]) in self._waiting and isinstance(result, Tensor):
            self._waiting[id(result)] = (result, self._waiting[id(args[0])][1])
        return result

    def _softmax(self, probabilities: Tensor, axis: Any) -> Tensor:
        """A softmax that may be attention: it is once values are multiplied by it."""
        if probabilities.ndim not in (3, 4) or axis not in (-1, probabilities.ndim - 1):
            return probabilities
        if self._take is not None:
            probabilities = self._take(probabilities)
        self._waiting[id(probabilities)] = (probabilities, probabilities)
        return probabilities

    def _multiplied(self, operands: list[Tensor]) -> None:
        mixing = next((part for part in operands if id(part) in self._waiting), None)
        if mixing is not None and len(operands) == 2:
            values = next(part for part in operands if part is not mixing)
            self._note(self._waiting.pop(id(mixing))[1], values)

    def _note(self, probabilities: Tensor, values: Tensor) -> None:
        self.values = values if self.values is None else self.values
        kept = probabilities if self._keep is None else self._keep(probabilities)
        self.found.append(Attended(tuple(probabilities.shape), kept))

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """`torch.nn.functional.scaled_dot_product_attention`."""
        if dropout_p > 0:
            raise ValueError(
                "`model` drops attention at random in evaluation as well, and what is drawn inside a fused attention "
                "cannot be seen; give one that does not, or a method that asks for scores alone, such as RISE"
            )
        heads = query.shape[-3] // key.shape[-3] if enable_gqa else 1
        key_, value_ = (part.repeat_interleave(heads, -3) if heads > 1 else part for part in (key, value))
        if self._take is None and (attn_mask is not None or torch.is_grad_enabled()):
            with torch.no_grad():
                beside = probabilities_of(query, key_, attn_mask, causal=is_causal, scale=scale)
            output = functional.scaled_dot_product_attention(
                query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
            )
            self._note(beside, value_)
            return output
        taken = probabilities_of(query, key_, attn_mask, causal=is_causal, scale=scale)
        if self._take is not None:
            taken = self._take(taken)
        self._note(taken, value_)
        return taken.to(value_.dtype) @ value_

    def _multi_head(self, **given: Any) -> tuple[Tensor, Tensor | None]:
        """`torch.nn.functional.multi_head_attention_forward`, which shows nothing of its inside."""
        query, key, value, heads = (given[name] for name in ("query", "key", "value", "num_heads"))
        odd = [name for name in _UNUSUAL if given.get(name) is not None]
        odd += ["add_zero_attn"] if given.get("add_zero_attn") else []
        if odd or query.ndim != 3:
            raise ValueError(
                f"`model` has an nn.MultiheadAttention with {odd[0] if odd else 'inputs without rows'}, which is not "
                "taken apart here; give a model without, or a method that asks for scores alone, such as RISE"
            )
        weight, bias = given["in_proj_weight"], given["in_proj_bias"]
        weights = (
            [given[f"{part}_proj_weight"] for part in "qkv"]
            if given.get("use_separate_proj_weight")
            else weight.chunk(3)
        )
        biases = [None] * 3 if bias is None else bias.chunk(3)
        length, rows, width = query.shape
        q, k, v = [
            functional.linear(part, w, b).unflatten(2, (heads, -1)).permute(1, 2, 0, 3)  # (rows, heads, T, features)
            for part, w, b in zip((query, key, value), weights, biases, strict=True)
        ]
        mask = given.get("attn_mask")
        if mask is not None and mask.dtype is torch.bool:
            mask = ~mask  # True hides here, and shows there
        if mask is not None and mask.ndim == 3:
            mask = mask.unflatten(0, (rows, heads))
        dropped = given["dropout_p"] if given.get("training", True) else 0.0
        mixed = self._attend(q, k, v, mask, dropped)  # a causal one comes with its mask
        joined = mixed.permute(2, 0, 1, 3).reshape(length, rows, width)
        output = functional.linear(joined, given["out_proj_weight"], given["out_proj_bias"])
        if not given.get("need_weights", True):
            return output, None
        own = probabilities_of(q, k, mask)
        return output, own.mean(1) if given.get("average_attn_weights", True) else own


def probabilities_of(
    query: Tensor, key: Tensor, mask: Tensor | None = None, *, causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(q kᵀ · scale + mask), (..., queries, keys) in float32 or wider; a query that may see no key sees none.

    Args:
        query: (..., queries, features).
        key: (..., keys, features).
        mask: True where a key may be seen, or numbers that are added; None for none.
        causal: whether query number i sees the keys up to number i.
        scale: None for one over the root of the features.
    """
    products = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    products = products.to(torch.promote_types(products.dtype, torch.float32))
    if causal:
        mask = torch.ones(products.shape[-2:], dtype=torch.bool, device=products.device).tril()
    if mask is None:
        return products.softmax(-1)
    hidden = ~mask if mask.dtype is torch.bool else mask == -torch.inf
    products = products.masked_fill(~mask, -torch.inf) if mask.dtype is torch.bool else products + mask
    return products.softmax(-1).masked_fill(hidden.all(-1, keepdim=True), 0.0)


def refusal(found: list[Attended], rows: int) -> str | None:
    """Why these are not the attentions of one sequence of tokens per row, each to all of them; None where they are.

    The last one may be of other queries to the tokens, as where attention pools them.
    """
    if not found:
        return "no attention among tokens ran in its forward (or one that no function of torch computes)"
    for one in found:
        if len(one.shape) not in (3, 4) or one.shape[0] != rows:
            return (
                f"its attention {one.shape} for {rows} input{'s' * (rows != 1)} is within windows or groups of tokens"
            )
    for one in found[:-1] or found:
        if one.shape[-2] != one.shape[-1]:
            return f"in one attention {one.shape[-2]} queries look at {one.shape[-1]} keys, not tokens at each other"
    counts = sorted({one.shape[-1] for one in found})
    if len(counts) > 1:
        return f"its attentions are among {' and '.join(map(str, counts))} tokens, which cannot be followed through"
    return None


def by_head(probabilities: Tensor) -> Tensor:
    """(rows, heads, T, T), also of one head without an axis."""
    return probabilities if probabilities.ndim == 4 else probabilities[:, None]


def leaf(probabilities: Tensor) -> Tensor:
    """The same by which a gradient can be taken: also the first attention's, where nothing before it has one."""
    return probabilities if probabilities.requires_grad else probabilities.detach().requires_grad_()
