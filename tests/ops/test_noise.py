"""Philox against its published answers, and noise that is normal, independent and bound to its address alone."""

from __future__ import annotations

import math

import pytest
import torch
from ops_support import BACKENDS, label, run

from xai_fast import ops
from xai_fast.ops._philox import words

ALL = 2**64 - 1
# Of the test vectors published with the generator (Random123, "kat_vectors", philox4x32 with 10 rounds).
KNOWN = [
    (0, 0, 0, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    (ALL, -1, 2**32 - 1, 2**32 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        0x299F31D0A4093822,
        0x0370734413198A2E,
        0x85A308D3,
        0x243F6A88,
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def noise(backend, shape=(1, 3, 8, 8), rows=2, dtype=torch.float64, **changes):
    """Only noise, of scale 1: rows of one key, draws counted from 0."""
    arguments = {
        "inputs": torch.zeros(shape, dtype=dtype),
        "scale": torch.ones(rows, dtype=torch.float64),
        "sample": torch.zeros(rows, dtype=torch.int64),
        "key": torch.zeros(rows, dtype=torch.int64),
        "draw": torch.arange(rows),
        "seed": 0,
        "out": torch.empty((rows, *shape[1:]), dtype=dtype),
    }
    return run(backend, "add_noise", {**arguments, **changes})


@pytest.fixture(params=["reference", *BACKENDS])
def backend(request):
    if reason := ops.backends()[request.param]:
        pytest.skip(reason)
    return request.param


@pytest.mark.parametrize(("seed", "key", "draw", "block", "expected"), KNOWN)
def test_words_are_the_published_ones(seed, key, draw, block, expected):
    drawn = words(seed, torch.tensor(key), torch.tensor(draw), torch.tensor(block))
    assert drawn.tolist() == expected


def test_words_broadcast():
    key, draw, block = torch.tensor([[3], [-4]]), torch.tensor([7, 8, 9]), torch.tensor(5)
    drawn = words(11, key, draw, block)
    assert drawn.shape == (2, 3, 4)
    assert drawn[1, 2].equal(words(11, key[1, 0], draw[2], block))


@pytest.mark.parametrize(("seed", "key", "draw", "expected"), [row[:3] + row[4:] for row in KNOWN if row[3] == 0])
def test_every_backend_makes_the_published_words_normal(backend, seed, key, draw, expected):
    radii = [math.sqrt(-2 * math.log((word | 1) / 2**32)) for word in expected[0::2]]
    turns = [2 * math.pi * word / 2**32 for word in expected[1::2]]
    normal = [radius * f(turn) for radius, turn in zip(radii, turns, strict=True) for f in (math.cos, math.sin)]
    address = {"key": torch.tensor([key]), "draw": torch.tensor([draw]), "seed": seed}
    drawn = noise(backend, (1, 1, 4), 1, **address).flatten()
    torch.testing.assert_close(drawn, torch.tensor(normal, dtype=torch.float64), rtol=0.0, atol=1e-14)


def test_single_precision_is_as_precise_as_promised(backend):
    """To 4 units, whatever the number: among these are words close to 0, to 2^32 and to quarter turns."""
    shape = (1, 1, 4096) if backend == "triton" else (1, 1, 2**20)
    exact = noise("reference", shape, 3)
    drawn = noise(backend, shape, 3, torch.float32).to(torch.float64)
    assert ((drawn - exact).abs() / exact.abs().clamp(min=1)).max() <= 4 * 2.0**-23


def test_noise_is_normal_and_independent():
    drawn = noise(None, (1, 1, 2**18), 4).flatten(1)
    count = drawn.numel()
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        spread = math.sqrt((math.prod(range(1, 2 * power, 2)) - moment**2) / count)
        assert abs(drawn.pow(power).mean() - moment) < 4 * spread
    expected = torch.distributions.Normal(0.0, 1.0).cdf(drawn.flatten().sort().values)
    assert (expected - torch.arange(count) / count).abs().max() < 1.95 / math.sqrt(count)  # Kolmogorov, 0.1 %
    neighbours = [drawn[:, :-lag].mul(drawn[:, lag:]).mean() for lag in range(1, 9)]
    assert max(map(abs, neighbours)) < 4 / math.sqrt(count)
    between = drawn @ drawn.T / drawn.shape[1] - torch.eye(4)
    assert between.abs().max() < 5 / math.sqrt(drawn.shape[1])


@pytest.mark.parametrize("changed", [{"seed": 1}, {"seed": 2**32}, {"key": 1}, {"key": 2**32}, {"draw": 9}], ids=str)
def test_every_part_of_an_address_counts(backend, changed):
    changes = {name: part if name == "seed" else torch.tensor([part]) for name, part in changed.items()}
    elements = noise(backend, rows=1).flatten()
    others = noise(backend, rows=1, **changes).flatten()
    assert len(elements.unique()) == elements.numel()
    assert not torch.isin(others, elements).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=label)
@pytest.mark.parametrize("shape", [(2, 3, 7, 5), (1, 3, 15, 13), (1, 3, 40, 41)], ids=str)
def test_neither_layout_nor_batch_changes_a_bit(backend, shape, dtype):
    if backend == "triton" and shape[-1] == 41 and not torch.cuda.is_available():
        pytest.skip("too slow in the interpreter")
    together = noise(backend, shape, 4, dtype, draw=torch.tensor([3, 0, 3, 1]), key=torch.tensor([1, 1, 1, 2]))
    last = torch.empty_like(together, memory_format=torch.channels_last)
    again = noise(backend, shape, 4, dtype, draw=torch.tensor([3, 0, 3, 1]), key=torch.tensor([1, 1, 1, 2]), out=last)
    assert again.equal(together)
    assert together[0].equal(together[2])
    alone = noise(backend, shape, 1, dtype, draw=torch.tensor([1]), key=torch.tensor([2]))
    assert alone[0].equal(together[3])


def test_a_negative_scale_mirrors_to_the_last_bit(backend):
    scale, draw = torch.tensor([0.3, -0.3], dtype=torch.float64), torch.tensor([5, 5])
    drawn = noise(backend, (1, 3, 9, 7), dtype=torch.float32, scale=scale, draw=draw)
    assert drawn[0].equal(-drawn[1])
    assert not drawn[0].eq(0).any()
