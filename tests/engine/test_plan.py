"""How the rows per forward are found: by timing real rows, within memory, halved where that was too hopeful."""

from __future__ import annotations

import pytest
import torch

from xai_fast.core.verify import Footprint
from xai_fast.engine.plan import (
    HALVINGS,
    RowBudget,
    fewer,
    first_size,
    halved,
    out_of_memory,
    rows_that_fit,
    rows_worth_trying,
)


def run(budget: RowBudget, rows: int, seconds_per_row, fits=lambda size: True) -> list[int]:
    """Spends `rows` as the loop does; returns the sizes of the chunks that ran."""
    sizes = []
    while rows:
        size = budget.rows(rows)
        assert 1 <= size <= rows
        if not fits(size):
            budget.halve(size)
            continue
        budget.record(size, seconds_per_row(size) * size)
        sizes.append(size)
        rows -= size
    return sizes


@pytest.mark.parametrize("fastest", [4, 8, 16])
def test_cpu_settles_on_the_fastest_size(fastest: int) -> None:
    budget = RowBudget("cpu")
    sizes = run(budget, 200, lambda size: 1.0 if size == fastest else 2.0)
    assert budget.settled == fastest
    assert sizes[-2] == fastest


def test_first_run_of_a_size_is_not_counted() -> None:
    budget = RowBudget("cpu")
    seen: set[int] = set()

    def seconds(size: int) -> float:
        first = size not in seen
        seen.add(size)
        return 100.0 if first else {8: 1.0, 16: 0.5, 4: 2.0}.get(size, 1.0)

    run(budget, 200, seconds)
    assert budget.settled == 16


def test_a_small_gain_is_noise() -> None:
    budget = RowBudget("cpu")
    run(budget, 200, lambda size: {8: 1.0, 16: 0.99, 4: 0.98}.get(size, 1.0))
    assert budget.settled == 8


def test_gpu_grows_as_far_as_it_pays() -> None:
    budget = RowBudget("cuda")
    run(budget, 4000, lambda size: 1.0 / min(size, 128))
    assert budget.settled == 128


def test_chunks_are_near_equal() -> None:
    assert run(RowBudget("cpu", fixed=8), 9, lambda size: 1.0) == [5, 4]
    assert run(RowBudget("cpu", fixed=8), 16, lambda size: 1.0) == [8, 8]


def test_few_rows_do_not_settle_anything() -> None:
    budget = RowBudget("cpu")
    assert run(budget, 3, lambda size: 1.0) == [3]
    assert budget.settled is None


def test_a_size_is_tried_where_enough_rows_are_left_to_gain_from_it() -> None:
    assert run(RowBudget("cpu"), 48, lambda size: 1.0) == [8] * 6
    assert run(RowBudget("cpu"), 80, lambda size: 1.0)[:4] == [8, 8, 16, 16]
    assert run(RowBudget("cuda"), 200, lambda size: 1.0 / size)[:4] == [32, 32, 64, 64]


def test_what_fits_bounds_the_trials() -> None:
    budget = RowBudget("cuda", most=40)
    assert max(run(budget, 1000, lambda size: 1.0)) <= 40


@pytest.mark.parametrize("capacity", [1, 3, 6, 11])
def test_out_of_memory_is_learnt_once(capacity: int) -> None:
    budget = RowBudget("cpu")
    sizes = run(budget, 300, lambda size: 1.0 / size, fits=lambda size: size <= capacity)
    assert max(sizes) <= capacity
    assert budget.settled is not None
    assert budget.settled <= capacity
    again = RowBudget("cpu", settled=budget.settled)
    refused = []
    run(again, 300, lambda size: 1.0, fits=lambda size: size <= capacity or refused.append(size))
    assert not refused


def test_rows_that_fit() -> None:
    cpu = torch.device("cpu")
    footprint = Footprint(largest=1000, total=50_000)
    assert rows_that_fit(None, cpu, 10**6, graph=False) is None
    without = rows_that_fit(footprint, cpu, 10**6, graph=False)
    graph = rows_that_fit(footprint, cpu, 10**6, graph=True)
    assert without is not None
    assert graph is not None
    assert 1 <= graph < without <= 1000
    assert rows_that_fit(footprint, cpu, 1, graph=True) == 1


def test_out_of_memory_is_recognised() -> None:
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert out_of_memory(MemoryError())
    assert out_of_memory(
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
    )
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_many_rows_of_large_activations_are_not_tried_backward() -> None:
    large, small = (Footprint(total=total, largest=3 << 20) for total in (128 << 20, 30 << 20))
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert rows_worth_trying(large, cpu, graph=True) == 8
    assert rows_worth_trying(small, cpu, graph=True) >= 16
    assert rows_worth_trying(large, cpu, graph=False) is None
    assert rows_worth_trying(large, cuda, graph=True) is None
    assert rows_worth_trying(None, cpu, graph=True) is None
    tried, budget = set(), RowBudget("cpu", worth_trying=8)
    while budget.measuring:
        tried.add(rows := budget.rows(1000))
        budget.record(rows, 1.0)
    assert tried == {4, 8}


@pytest.mark.parametrize(
    ("device", "total", "rows"),
    [
        *[("cpu", total, rows) for total, rows in ((90 << 20, 8), (3 << 20, 32), (1 << 20, 128), (1 << 10, 128))],
        ("cuda", 1 << 10, 32),
    ],
)
def test_rows_that_hold_little_begin_in_larger_batches(device: str, total: int, rows: int) -> None:
    footprint = Footprint(total // 4, total)
    assert first_size(device, footprint) == rows
    budget = RowBudget(device, first=rows)
    assert budget.rows(10 * rows) == rows
    assert budget.rows(rows - 1) == rows - 1
    with halved(HALVINGS):
        assert fewer(rows) == 1


def test_the_first_size_is_kept_unless_another_is_clearly_faster() -> None:
    budget = RowBudget("cpu", first=64)
    assert run(budget, 4000, lambda size: 1.0 if size == 64 else 0.99)[:6] == [64, 64, 128, 128, 32, 32]
    assert budget.settled == 64
