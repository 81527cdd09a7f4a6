"""Keyed uniform numbers: their range and spread, their addresses, and no meeting with the noise of the same draw."""

from __future__ import annotations

import math

import pytest
import torch

from xai_fast.core.random import choices, uniforms
from xai_fast.ops._philox import words


def test_numbers_are_uniform_and_independent():
    drawn = uniforms(7, torch.arange(200) - 100, torch.arange(200) * 3, 500)
    assert drawn.shape == (200, 500)
    assert drawn.dtype == torch.float64
    assert (drawn >= 0).all()
    assert (drawn < 1).all()
    count = drawn.numel()
    spread = drawn.flatten().sort().values - torch.arange(count) / count
    assert spread.abs().max() < 1.95 / math.sqrt(count)  # Kolmogorov, 0.1 %
    centred = (drawn - 0.5) * math.sqrt(12)
    assert abs((centred[:, 1:] * centred[:, :-1]).mean()) < 4 / math.sqrt(count)
    assert abs((centred[1:] * centred[:-1]).mean()) < 4 / math.sqrt(count)


def test_all_53_bits_are_drawn():
    drawn = uniforms(0, torch.zeros(64, dtype=torch.int64), torch.arange(64), 9) * 2.0**53
    assert drawn.eq(drawn.floor()).all()
    bits = drawn.to(torch.int64).flatten()
    for bit in range(53):
        assert 0.4 < (bits >> bit & 1).to(torch.float64).mean() < 0.6


def test_a_number_depends_on_its_address_alone():
    key, draw = torch.tensor([5, -6, 2**40]), torch.tensor([0, 2**32 - 1, 17])
    together = uniforms(3, key, draw, 8)
    for row in range(3):
        for count in (1, 2, 5):
            assert uniforms(3, key[row : row + 1], draw[row : row + 1], count)[0].equal(together[row, :count])
    others = [uniforms(4, key, draw, 8), uniforms(3, key + 1, draw, 8), uniforms(3, key, draw ^ 1, 8)]
    assert len(torch.cat([together, *others]).unique()) == 4 * 3 * 8


def test_numbers_are_those_of_the_documented_words():
    drawn = uniforms(9, torch.tensor([2]), torch.tensor([4]), 3)[0]
    block = words(9, torch.tensor(2), torch.tensor(4), torch.tensor([2**31, 2**31 + 1])).flatten().tolist()
    expected = [((high >> 5) * 2**26 + (low >> 6)) / 2**53 for high, low in zip(block[:6:2], block[1:6:2], strict=True)]
    assert drawn.tolist() == expected


def test_no_words_are_shared_with_noise():
    key, draw = torch.tensor([2]), torch.tensor([4])
    of_noise = words(9, key, draw, torch.arange(1000)).flatten()
    drawn = uniforms(9, key, draw, 1000)[0] * 2.0**27
    assert not torch.isin(drawn.to(torch.int64), of_noise >> 5).any()


@pytest.mark.parametrize("options", [1, 2, 3, 7, 2**20 + 1])
def test_choices_are_within_their_options(options):
    ends = torch.tensor([0.0, 0.5, 1 - 2.0**-53], dtype=torch.float64)
    assert choices(ends, options).tolist() == [0, options // 2, options - 1]


def test_choices_are_equally_likely():
    chosen = choices(uniforms(1, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), 30000)[0], 3)
    assert chosen.dtype == torch.int64
    assert (chosen.bincount(minlength=3) - 10000).abs().max() < 4 * math.sqrt(30000 * 2 / 9)
