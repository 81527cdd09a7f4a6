"""Copies of one model share the weights in which they do not differ, and what is held can be counted once."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_OURS = "xai_fast."
_NOTHING = (type(None), str, int, float, bool, type)  # what is not counted
_OBJECT = 300  # bytes that a Python object takes with what hangs on it, about


@torch.no_grad()
def share_weights(module: nn.Module, others: Iterable[nn.Module]) -> None:
    """Gives a copy of a model the parameters of other copies of it, where both are the same to the byte.

    They are found under the same names: folding changes a few weights around each layer that somebody looks at.
    Buffers stay apart, because a forward may write into its own.

    Args:
        module: laid out as it will run, and not fused yet.
        others: copies in use.
    """
    tables = [dict(other.named_parameters()) for other in others]
    for path, mine in list(module.named_parameters()):
        seen: set[int] = set()
        for table in tables:
            theirs = table.get(path)
            if theirs is None or id(theirs) in seen:
                continue
            seen.add(id(theirs))
            if _same(mine, theirs):
                parent, _, name = path.rpartition(".")
                owner = module.get_submodule(parent)
                if owner._parameters.get(name) is mine:
                    owner._parameters[name] = theirs
                break


def _same(one: Tensor, other: Tensor) -> bool:
    alike = (one.shape, one.dtype, one.device, one.stride()) == (other.shape, other.dtype, other.device, other.stride())
    return alike and one is not other and type(one) is type(other) is nn.Parameter and torch.equal(one, other)


def held(*roots: Any) -> dict[int, int]:
    """What objects of ours hold: bytes by memory, so that what several hold can be counted once.

    Python objects count with a guess, all of them together: an entry for each would hold as much as most of them do.
    What a module of the user's keeps in Python is theirs, and is not looked into.
    """
    found: dict[int, int] = {}
    seen: set[int] = set()
    left, objects = list(roots), 0
    while left:
        item = left.pop()
        if type(item) in _NOTHING or id(item) in seen or isinstance(item, _NOTHING):
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            found.update(_of_tensor(item))
        elif isinstance(item, np.ndarray):
            found[id(item)] = item.nbytes
        else:
            objects += 1
            if beyond := getattr(item, "beyond", 0):  # what a device keeps for it, out of sight
                found[id(item)] = beyond
            left.extend(_parts(item))
    found[id(found)] = objects * _OBJECT  # a place of its own for as long as this is kept
    return found


def _of_tensor(tensor: Tensor) -> dict[int, int]:
    if tensor.is_meta:
        return {}
    try:
        storage = tensor.untyped_storage()
        return {storage.data_ptr(): storage.nbytes()}
    except (RuntimeError, NotImplementedError):  # packed by a library, opaque
        return {id(tensor): tensor.numel() * tensor.element_size()}


def _parts(item: Any) -> Iterable[Any]:
    if isinstance(item, nn.Module):
        return (*item.parameters(), *item.buffers())
    if isinstance(item, dict):
        return item.values()
    if isinstance(item, (list, tuple, set, frozenset)):
        return item
    # Not `vars`: it would make a dictionary of every object that is asked, which then stays.
    return gc.get_referents(item) if type(item).__module__.startswith(_OURS) else ()
