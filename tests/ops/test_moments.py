"""Sums go on from what is there, in the order of the rows, and tell autograd that they did."""

from __future__ import annotations

import pytest
import torch
from ops_support import BACKENDS

from xai_fast import ops


@pytest.fixture(params=["reference", *BACKENDS])
def backend(request):
    if reason := ops.backends()[request.param]:
        pytest.skip(reason)
    with ops.using(request.param):
        yield request.param


def sums(groups=2, shape=(3, 6, 5)):
    return tuple(torch.zeros(groups, *shape, dtype=torch.float64) for _ in range(2))


def test_rows_may_come_in_any_number_of_calls(backend):
    values, weight = torch.randn(9, 3, 6, 5), torch.rand(9, dtype=torch.float64)
    group = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 0])
    whole, parts = sums(), sums()
    ops.moments(values, weight, group, *whole)
    for rows in ([0, 1], [2], [3, 4, 5, 6], [7, 8]):
        ops.moments(values[rows], weight[rows], group[rows], *parts)
    assert all(a.equal(b) for a, b in zip(whole, parts, strict=True))


def test_sums_are_kept_in_double_precision(backend):
    """A small value beside large ones of both signs, which single precision would lose."""
    values = torch.tensor([1e8, 1.0, -1e8]).reshape(3, 1)
    total, squares = sums(1, (1,))
    ops.moments(values, None, torch.zeros(3, dtype=torch.int64), total, squares)
    assert total.item() == 1.0
    assert squares.item() == 2e16


def test_what_was_summed_before_is_kept(backend):
    total, squares = sums()
    total += 2.0
    squares += 3.0
    ops.moments(torch.full((1, 3, 6, 5), -4.0), None, torch.tensor([1]), total, squares)
    assert total[0].eq(2.0).all()
    assert squares[0].eq(3.0).all()
    assert total[1].eq(-2.0).all()
    assert squares[1].eq(19.0).all()


def test_values_that_are_not_numbers_reach_their_group_only(backend):
    total, squares = sums()
    values = torch.stack((torch.full((3, 6, 5), torch.nan), torch.ones(3, 6, 5)))
    ops.moments(values, None, torch.tensor([1, 0]), total, squares)
    assert total[0].eq(1.0).all()
    assert squares[0].eq(1.0).all()
    assert total[1].isnan().all()
    assert squares[1].isnan().all()


@pytest.mark.parametrize("chosen", [[0], [1], [0, 1]], ids=str)
def test_versions_of_what_was_written_rise(backend, chosen):
    both = sums()
    versions = [value._version for value in both]
    given = [value if i in chosen else None for i, value in enumerate(both)]
    ops.moments(torch.ones(1, 3, 6, 5), None, torch.tensor([1]), *given)
    assert [both[i]._version > versions[i] for i in range(2)] == [i in chosen for i in range(2)]
