"""byte_hash: what must show in it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_support import INTERPRETED

from xai_fast import ops
from xai_fast.ops.byte_hash.reference import BLOCK

BACKENDS = ("reference", "cpp", "triton")


def hashed(backend, *tensors):
    if reason := ops.backends()[backend]:
        pytest.skip(reason)
    if backend == "triton" and INTERPRETED:
        pytest.skip("too slow in the interpreter, where it equals the reference on every small case")
    with ops.using(backend):
        return ops.byte_hash(tensors).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    size=st.integers(1, 3 * BLOCK), at=st.integers(0, 10**9), bit=st.integers(0, 7), fill=st.sampled_from([0, 255, 7])
)
def test_a_single_bit_shows(backend, size, at, bit, fill):
    values = torch.full((size,), fill, dtype=torch.uint8)
    before = hashed(backend, values)
    values[at % size] ^= 1 << bit
    assert hashed(backend, values) != before
    values[at % size] ^= 1 << bit
    assert hashed(backend, values) == before


def _swap(values):
    values[[7, 4096]] = values[[4096, 7]].clone()


def _signs(values):
    values[1:3000:2].neg_()


def _two_signs(values):
    values[[1, 65]] = -values[[1, 65]]


def _one_number_to_all(values):
    values += values.mean()


def _scale(values):
    values *= 2


def _shift(values):
    values.copy_(values.roll(512))


def _blocks(values):
    values.view(8, 1024)[[2, 5]] = values.view(8, 1024)[[5, 2]].clone()


def _not_a_number(values):
    values[5] = torch.nan


def _minus_zero(values):
    values[4] = -0.0


CHANGES = [_swap, _signs, _two_signs, _one_number_to_all, _scale, _shift, _blocks, _not_a_number, _minus_zero]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__[1:])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_sums_would_miss_shows(backend, change):
    for seed in range(20):
        values = torch.randn(8192, generator=torch.Generator().manual_seed(seed))
        values[4] = 0.0
        before = hashed(backend, values)
        change(values)
        assert hashed(backend, values) != before


@pytest.mark.parametrize("backend", BACKENDS)
def test_lengths_show(backend):
    """Zeros behind data are data."""
    found = hashed(backend, *[torch.zeros(n) for n in (0, 1, 2, 1023, 1024, 1025, 600_000)])
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_that_was_given_back_counts_as_empty(backend):
    values = torch.randn(3000)
    values.untyped_storage().resize_(0)
    assert hashed(backend, values) == hashed(backend, torch.empty(0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_has_a_lazy_bit_is_resolved(backend):
    values = torch.randn(300, dtype=torch.complex64)
    assert hashed(backend, values.conj()) == hashed(backend, values.conj().resolve_conj()) != hashed(backend, values)
    negative = torch.complex(values.real, -values.imag).conj().imag
    assert hashed(backend, negative.contiguous()) == hashed(backend, negative.resolve_neg().contiguous())


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_order_of_axes_is_read_as_it_lies_in_memory(backend):
    values = torch.randn(4, 5, 6, 7)
    assert hashed(backend, values) == hashed(backend, values.permute(2, 0, 3, 1)) == hashed(backend, values.view(-1))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([torch.zeros(4, 6)[:, ::2]], r"`tensors` has one of shape \(4, 3\) and strides \(6, 2\)"),
        ([torch.zeros(4, 1).expand(4, 6)], r"`tensors` has one of shape \(4, 6\)"),
        ([torch.zeros(3), torch.zeros(3, device="meta")], "`tensors` are on cpu and meta"),
    ],
)
def test_what_does_not_fit_is_named(tensors, message):
    with ops.using("cuda"), pytest.raises(ValueError, match=message):
        ops.byte_hash(tensors)
