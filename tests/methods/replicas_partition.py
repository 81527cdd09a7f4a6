"""Owen values once more, slowly: sets of positions, float64, one row at a time; by recursion, and strictly best first.

Nothing here is shared with the library: boxes are sets, contexts are sets, and scores are looked up by what is shown.
"""

from __future__ import annotations

import itertools
import math

import torch
from replicas import _baseline, in_double, score


def game(model, row, start, target):
    """The score of a class when a set of positions shows the input and the others the baseline; each set runs once."""
    known = {}

    def value(shown):
        if shown not in known:
            variant = start.clone()
            for place in shown:
                variant[(slice(None), *place)] = row[(slice(None), *place)]
            with torch.no_grad():
                known[shown] = score(model, variant, target).item()
        return known[shown]

    return value


def places(space):
    """All positions of *S."""
    return frozenset(itertools.product(*map(range, space)))


def cut(box):
    """Two halves of a box along its longest axis, the first of equals; the lower one is the smaller."""
    lows = [min(axis) for axis in zip(*box, strict=True)]
    highs = [max(axis) for axis in zip(*box, strict=True)]
    longest = 0
    for axis in range(len(lows)):
        if highs[axis] - lows[axis] > highs[longest] - lows[longest]:
            longest = axis
    middle = lows[longest] + (highs[longest] - lows[longest] + 1) // 2
    lower = frozenset(place for place in box if place[longest] < middle)
    return lower, box - lower


def owen(value, box, context=frozenset()):
    """{position: its Owen value}, by the recursion: a half comes before the other, or after it, equally often."""
    if len(box) == 1:
        return dict.fromkeys(box, value(context | box) - value(context))
    lower, upper = cut(box)
    found = dict.fromkeys(box, 0.0)
    for part, other in ((lower, upper), (upper, lower)):
        for shown in (frozenset(), other):
            for place, share in owen(value, part, context | shown).items():
                found[place] += share / 2
    return found


def orders(box):
    """Every order of the positions in which each half of a box comes as a whole."""
    if len(box) == 1:
        yield tuple(box)
        return
    lower, upper = (list(orders(part)) for part in cut(box))
    for first, second in ((lower, upper), (upper, lower)):
        for one, other in itertools.product(first, second):
            yield one + other


def owen_maps(model, inputs, targets, *, baseline=0.0):
    """(N, 1, *S): Owen values to the last position."""
    model, inputs, maps = in_double(model), inputs.double(), []
    for row, target in zip(inputs, targets, strict=True):
        space = tuple(row.shape[1:])
        found = owen(game(model, row, _start(baseline, row), target), places(space))
        maps.append(_laid(found, space))
    return torch.stack(maps)


def partition_shap(model, inputs, targets, *, n_evaluations, baseline="blur", seed=0):
    """The recursion, one box after the other, always the one that adds most, until two rows more would be too many."""
    model, inputs, maps = in_double(model), inputs.double(), []
    for row, target in zip(inputs, targets, strict=True):
        space = tuple(row.shape[1:])
        value = game(model, row, _start(baseline, row), target)
        left, waiting, done = n_evaluations - 2, [(places(space), frozenset(), 1.0)], []

        def adds(node, value=value):
            box, context, weight = node
            return (value(context | box) - value(context)) * weight

        while waiting:
            node = max(waiting, key=lambda node: abs(adds(node)))
            waiting.remove(node)
            box, context, weight = node
            if len(box) == 1 or left < 2:
                done.append(node)
                continue
            left -= 2
            lower, upper = cut(box)
            waiting += [(lower, context, weight / 2), (upper, context, weight / 2)]
            waiting += [(lower, context | upper, weight / 2), (upper, context | lower, weight / 2)]
        found = dict.fromkeys(places(space), 0.0)
        for node in done:
            for place in node[0]:
                found[place] += adds(node) / len(node[0])
        maps.append(_laid(found, space))
    return torch.stack(maps)


def _laid(found, space):
    result = torch.zeros(1, *space, dtype=torch.float64)
    for place, share in found.items():
        result[(0, *place)] = share
    return result


def _start(baseline, row):
    return _blurred(row) if baseline == "blur" else _baseline(baseline, row)


def _blurred(row):
    """A Gaussian of 5 % of the short side along every axis, cut at four sigma, the edges repeated."""
    space = row.shape[1:]
    sigma = 0.05 * min(space)
    reach = math.ceil(4 * sigma)
    weights = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-reach, reach + 1)]
    for axis, extent in enumerate(space, start=1):
        lines = []
        for at in range(extent):
            line = 0
            for offset, weight in zip(range(-reach, reach + 1), weights, strict=True):
                line = line + weight / sum(weights) * row.select(axis, min(max(at + offset, 0), extent - 1))
            lines.append(line)
        row = torch.stack(lines, dim=axis)
    return row
