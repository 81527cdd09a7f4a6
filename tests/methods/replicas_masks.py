"""RISE once more, slowly: float64, masks by scikit-image as the authors' program makes them, one at a time.

Nothing is shared with the library, not even the random numbers: Philox is written out in whole numbers.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import replicas
import torch
from replicas import in_double, score
from skimage.transform import resize

GROUPS = 20


def philox(seed, key, draw, block):
    """Philox4x32-10 (Salmon et al. 2011): four words of 32 bits."""
    word = 2**32
    counter = [block, draw, key % word, key // word % word]
    keys = [seed % word, seed // word]
    for _ in range(10):
        first, second = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
        counter = [
            second // word ^ counter[1] ^ keys[0],
            second % word,
            first // word ^ counter[3] ^ keys[1],
            first % word,
        ]
        keys = [(keys[0] + 0x9E3779B9) % word, (keys[1] + 0xBB67AE85) % word]
    return counter


def uniform(seed, key, draw, number):
    """A number in [0, 1) of 53 bits: two words of half a block."""
    words = philox(seed, key % 2**64, draw, 2**31 + number // 2)[2 * (number % 2) :][:2]
    return (words[0] // 2**5 * 2**26 + words[1] // 2**6) / 2**53


def count_kept(u, total, keep):
    """The smallest k for which P(at most k of the cells are kept) is above u."""
    probability = 0.0
    for k in range(total):
        probability += math.comb(total, k) * keep**k * (1 - keep) ** (total - k)
        if u < probability:
            return k
    return total


@functools.lru_cache(maxsize=4096)
def mask(seed, key, draw, sampler, keep, cells, space):
    """The mask of one draw (*space), float64."""
    shape = (cells,) * len(space)
    total = math.prod(shape)
    source = draw // 2 * 2 if sampler == "antithetic" else draw
    numbers = [uniform(seed, key, source, i) for i in range(total + len(space))]
    kept = [u < keep for u in numbers[:total]]
    if sampler == "antithetic" and draw % 2:
        kept = [not k for k in kept]
    if sampler == "stratified":
        group, place = draw % GROUPS, draw // GROUPS
        mirrored = sum(int(digit) / 2 ** (n + 1) for n, digit in enumerate(reversed(bin(place)[2:])))
        count = count_kept((mirrored + uniform(seed, key, 2**31 + group, 0)) % 1, total, keep)
        smallest = sorted(range(total), key=numbers[:total].__getitem__)[:count]
        kept = [i in smallest for i in range(total)]
    extents = [math.ceil(n / cells) for n in space]
    shifts = [int(u * extent) for u, extent in zip(numbers[total:], extents, strict=True)]
    return enlarged(np.array(kept, dtype=float).reshape(shape), shifts, space)


def enlarged(grid, shifts, space):
    """As in the authors' `generate_masks`: to (s + 1) cells of ceil(extent / s), cut out at the shift."""
    sizes = [(s + 1) * math.ceil(n / s) for s, n in zip(grid.shape, space, strict=True)]
    whole = resize(grid, sizes, order=1, mode="reflect", anti_aliasing=False)
    return torch.from_numpy(whole[tuple(slice(a, a + n) for a, n in zip(shifts, space, strict=True))].copy())


def rise(
    model,
    inputs,
    targets,
    *,
    n_masks=4000,
    cells=7,
    keep=0.5,
    baseline=0.0,
    centred=False,
    sampler="bernoulli",
    seed=0,
    sample_ids=None,
):
    """Σ f(b + m (x − b)) m / (n p), or of f less its mean."""
    model, inputs = in_double(model), inputs.double()
    maps = []
    for n, (row, target) in enumerate(zip(inputs, targets, strict=True)):
        key, space = 0 if sample_ids is None else int(sample_ids[n]), tuple(row.shape[1:])
        masks = [mask(seed, key, draw, sampler, keep, cells, space) for draw in range(n_masks)]
        maps.append(weighted(model, row, target, masks, replicas._baseline(baseline, row), centred) / keep)
    return torch.stack(maps)


def weighted(model, row, target, masks, hidden, centred=False):
    """Σ f(b + m (x − b)) m / n of one sample (C, *S) over masks (*S): (1, *S)."""
    with torch.no_grad():
        scores = [score(model, hidden + m * (row - hidden), target).item() for m in masks]
    mean = sum(scores) / len(scores) if centred else 0.0
    return sum((s - mean) * m for s, m in zip(scores, masks, strict=True))[None] / len(masks)


def drise(model, inputs, targets, *, cells=16, **settings):
    """The same with smaller cells."""
    return rise(model, inputs, targets, cells=cells, **settings)
