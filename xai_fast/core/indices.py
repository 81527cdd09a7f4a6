"""Indices that lie on the model's device and whose values the host knows too, so that neither waits for the other.

On a GPU an index that the host makes has to be sent over, and a number that it asks for is waited for until all that
was launched before has run. So the numbers of all rows of a sweep go over once, chunks are views of them, what follows
from them is computed on both sides, and tables that they are looked up in go over once. On the CPU nothing of this
costs anything: both sides are the same tensor.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_MOST_RUNS = 8  # stretches of successive numbers that are made on the device; more of them are sent over

_KNOWN = WeakTensorKeyDictionary()  # from an index on a device to its values on the CPU
_SENT = WeakTensorKeyDictionary()  # from a table to, by device, (version, table there)


def on_device(index: Tensor, device: torch.device) -> Tensor:
    """An index on a device; the host still knows it."""
    here = index.device
    if device == here or (device.type == here.type and (device.index is None or index.is_cpu)):
        return index
    found = index.to(device)
    return found if found.is_cpu else _remember(found, known(index))


def known(index: Tensor) -> Tensor:
    """The values of an index on the CPU: as they are known, or else read."""
    if index.is_cpu:
        return index
    values = _KNOWN.get(index)
    return index.cpu() if values is None else values


def part(index: Tensor, start: int, stop: int) -> Tensor:
    """The numbers from `start` on and before `stop`, a view."""
    found = index[start:stop]
    return found if index.is_cpu else _remember(found, known(index)[start:stop])


def both(function: Callable[[Tensor], Tensor], index: Tensor) -> Tensor:
    """What follows from an index, on its device and, by the same function, on the CPU."""
    found = function(index)
    return found if found.is_cpu else _remember(found, function(known(index)))


def joined(several: Sequence[Tensor]) -> Tensor:
    """One index after the other."""
    found = torch.cat(list(several))
    return found if found.is_cpu else _remember(found, torch.cat([known(one) for one in several]))


def spanning(start: int, stop: int, device: torch.device) -> Tensor:
    """The numbers from `start` on and before `stop`, made where they are needed."""
    found = torch.arange(start, stop, device=device)
    return found if found.is_cpu else _remember(found, torch.arange(start, stop))


def distinct(index: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct values of an index in order, and which of them each is."""
    values, number = known(index).unique(return_inverse=True)
    if index.is_cpu:
        return values, number
    here = _in_runs(values, index.device)
    return here, _remember(torch.searchsorted(here, index), number)


def beside(table: Tensor, index: Tensor) -> Tensor:
    """A table where the index that it is looked up with lies; sent over once, and again only if it was written to."""
    if table.device == index.device:
        return table
    sent = _SENT.get(table)
    if sent is None:
        sent = _SENT[table] = {}
    if index.device not in sent or sent[index.device][0] != table._version:
        sent[index.device] = (table._version, table.to(index.device))
    return sent[index.device][1]


def _remember(index: Tensor, values: Tensor) -> Tensor:
    _KNOWN[index] = values
    return index


def _in_runs(values: Tensor, device: torch.device) -> Tensor:
    """Ascending numbers on a device, made there stretch by stretch."""
    ends = [0, *(values.diff() != 1).nonzero()[:, 0].add(1).tolist(), len(values)]
    if len(ends) - 1 > _MOST_RUNS:
        return on_device(values, device)
    stretches = itertools.pairwise(ends)
    runs = [spanning(int(values[a]), int(values[b - 1]) + 1, device) for a, b in stretches if b > a]
    return _remember(torch.cat(runs) if len(runs) > 1 else runs[0], values) if runs else values.to(device)
