"""Adaptive steps: closed forms of paths with known integrals, weights read off, estimates held against true errors."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from xai_fast.engine.estimators.walk import trapezoid
from xai_fast.engine.samplers.adaptive import FIRST, KEPT, AdaptivePath

# Of steps (n,): scores (n,), and maps (n, P) whose sums are the scores' derivatives.
Path = Callable[[Tensor], tuple[Tensor, Tensor]]


def integrate(path: Path, *, tolerance: float = 0.01, max_steps: int = 1024) -> tuple[AdaptivePath, list[int]]:
    """Runs one target, each level in two chunks and backwards; also the sizes of the levels."""
    ends = path(torch.tensor([0.0, 1.0], dtype=torch.float64))[0][:, None]
    size = path(torch.zeros(1, dtype=torch.float64))[1].shape[1]
    adaptive = AdaptivePath(torch.ones(1, size, dtype=torch.float64), ends, tolerance=tolerance, max_steps=max_steps)
    levels = []
    while (steps := adaptive.next()) is not None:
        levels.append(len(steps))
        for rows in reversed(torch.arange(len(steps)).split((len(steps) + 1) // 2)):
            scores, maps = path(steps[rows])
            adaptive.take(rows, scores[:, None], maps[:, None, None])
    return adaptive, levels


def true_error(adaptive: AdaptivePath, truth: Tensor) -> float:
    return ((adaptive.values[0, 0] - truth).norm() / truth.norm()).item()


def linear(a: Tensor) -> tuple[Tensor, Tensor]:
    return 5 * a, torch.tensor([2.0, 3.0], dtype=torch.float64).repeat(len(a), 1)


def quadratic(a: Tensor) -> tuple[Tensor, Tensor]:
    return a**2 + a, torch.stack([2 * a, torch.ones_like(a)], dim=1)


def kink(a: Tensor) -> tuple[Tensor, Tensor]:
    """relu(a - 0.3) + a in two elements: the gradient jumps once."""
    return (a - 0.3).clamp_min(0) + a, torch.stack([(a > 0.3).double(), torch.ones_like(a)], dim=1)


def needle(a: Tensor) -> tuple[Tensor, Tensor]:
    """Rises by 1 within 0.01, between the first level's steps, where alone the second element is not 0."""
    inside = ((a > 0.37) & (a < 0.38)).double() * 100
    return ((a - 0.37) / 0.01).clamp(0, 1), torch.stack([torch.zeros_like(a), inside], dim=1)


def jumps(seed: int, n: int = 3000, size: int = 400) -> tuple[Path, Tensor]:
    """A gradient that walks: n small jumps in random directions at random places; also the exact map."""
    draw = torch.Generator().manual_seed(seed)
    at = torch.rand(n, generator=draw, dtype=torch.float64)
    by = torch.randn(n, size, generator=draw, dtype=torch.float64) / n**0.5
    start = torch.randn(size, generator=draw, dtype=torch.float64) + 0.2

    def path(a: Tensor) -> tuple[Tensor, Tensor]:
        maps = start + (a[:, None] > at).double() @ by
        return a * start.sum() + (a[:, None] - at).clamp_min(0) @ by.sum(1), maps

    return path, start + (1 - at) @ by


def read_off(max_steps: int) -> Tensor:
    """The weights of all steps: the i-th that is taken has a random number at element i of its map, else nothing."""
    numbers = torch.randn(max_steps, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = torch.tensor([[0.0], [0.1]], dtype=torch.float64)
    adaptive = AdaptivePath(torch.ones(1, max_steps, dtype=torch.float64), ends, tolerance=0.01, max_steps=max_steps)
    while (steps := adaptive.next()) is not None:
        maps = numbers.diag()[adaptive.steps : adaptive.steps + len(steps)]
        adaptive.take(torch.arange(len(steps)), 0.1 * steps[:, None], maps[:, None, None])
    return adaptive.values[0, 0, : adaptive.steps] / numbers[: adaptive.steps]


def test_a_linear_path_takes_one_level() -> None:
    adaptive, levels = integrate(linear, tolerance=1e-9)
    assert levels == [FIRST]
    assert adaptive.reached
    torch.testing.assert_close(adaptive.values[0, 0], torch.tensor([2.0, 3.0], dtype=torch.float64))
    assert adaptive.gap.abs().item() < 1e-12
    assert adaptive.error.item() < 1e-7


def test_a_quadratic_path_is_exact_because_its_sum_is_known() -> None:
    adaptive, levels = integrate(quadratic)
    assert len(levels) == 1
    torch.testing.assert_close(adaptive.values[0, 0], torch.tensor([1.0, 1.0], dtype=torch.float64))


def test_leaning_makes_a_kink_exact_and_refining_finds_it() -> None:
    adaptive, levels = integrate(kink, tolerance=1e-4)
    torch.testing.assert_close(adaptive.values[0, 0], torch.tensor([0.7, 1.0], dtype=torch.float64))
    assert adaptive.reached
    assert adaptive.steps < 40
    assert sum(levels) == adaptive.steps


def test_steps_gather_at_a_kink() -> None:
    visited: list[Tensor] = []

    def watched(a: Tensor) -> tuple[Tensor, Tensor]:
        visited.append(a)
        return kink(a)

    integrate(watched, tolerance=1e-4)
    later = torch.cat(visited[4:])  # after both ends, one look at the size, and the first level in two chunks
    assert len(later) > 4
    assert ((later - 0.3).abs() < 0.07).double().mean() > 0.8


def test_what_lies_between_the_steps_is_found_by_the_scores() -> None:
    adaptive, _ = integrate(needle)
    assert adaptive.reached
    assert adaptive.steps > FIRST
    torch.testing.assert_close(adaptive.values[0, 0], torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=0.01, atol=0)


@pytest.mark.parametrize("tolerance", [0.05, 0.01, 0.001])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_estimate_is_the_error_of_a_walk(tolerance: float, seed: int) -> None:
    path, truth = jumps(seed)
    adaptive, levels = integrate(path, tolerance=tolerance)
    assert adaptive.reached
    assert adaptive.steps == sum(levels)
    assert 0.7 < true_error(adaptive, truth) / adaptive.error.item() < 1.3
    assert adaptive.error.item() <= adaptive.settled <= 0.05
    assert adaptive.values.sum().item() == pytest.approx((path(torch.ones(1, dtype=torch.float64))[0]).item())


def test_a_walk_takes_fewer_steps_than_gauss_legendre() -> None:
    path, truth = jumps(3)
    adaptive, _ = integrate(path)

    def fixed(n: int) -> float:
        nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(n))
        return ((weights / 2 @ path((nodes + 1) / 2)[1] - truth).norm() / truth.norm()).item()

    error = true_error(adaptive, truth)
    assert all(fixed(n) > error for n in range(1, adaptive.steps + 1))


@pytest.mark.parametrize("max_steps", [1, 2, 5, 8, 11, 40, KEPT, 300, 1024])
def test_weights_sum_to_one_and_none_is_negative(max_steps: int) -> None:
    weights = read_off(max_steps)
    assert weights.sum().item() == pytest.approx(1, abs=1e-9)
    assert weights.min() >= -1e-12


def test_no_more_than_max_steps_and_halving_beyond_those_kept() -> None:
    path, truth = jumps(4, n=2000, size=100)
    errors = []
    for max_steps in (KEPT, 255, 509, 1024):
        adaptive, levels = integrate(path, tolerance=1e-9, max_steps=max_steps)
        assert not adaptive.reached
        assert adaptive.steps == sum(levels)
        assert all(level <= sum(levels[:i]) + 1 for i, level in enumerate(levels[1:], 1))
        assert 0.6 < true_error(adaptive, truth) / adaptive.error.item() < 1.4
        errors.append(true_error(adaptive, truth))
    assert levels[-3:] == [128, 254, 508]
    assert sum(levels) == 1017
    assert all(later < 0.7 * earlier for earlier, later in itertools.pairwise(errors))


@pytest.mark.parametrize(("max_steps", "steps"), [(8, 8), (20, 20), (KEPT, KEPT), (254, KEPT), (255, 255)])
def test_a_last_halving_that_does_not_fit_is_left_out(max_steps: int, steps: int) -> None:
    path, _ = jumps(4, n=500, size=50)
    adaptive, _ = integrate(path, tolerance=1e-9, max_steps=max_steps)
    assert adaptive.steps == steps
    assert not adaptive.reached


def test_the_gap_is_stated_where_steps_run_out() -> None:
    adaptive, _ = integrate(needle, max_steps=FIRST)
    assert not adaptive.reached
    assert adaptive.gap.item() == pytest.approx(-1)  # nothing of a rise by 1 was seen


def test_the_worst_of_several_targets_decides() -> None:
    path, truth = jumps(5)
    alone, levels = integrate(path)
    ends = path(torch.tensor([0.0, 1.0], dtype=torch.float64))[0]
    both = AdaptivePath(torch.ones(1, 400, dtype=torch.float64), torch.stack([ends, ends * 0], dim=1), tolerance=0.01)
    taken = []
    while (steps := both.next()) is not None:
        scores, maps = path(steps)
        two_maps = torch.stack([maps, maps * 0], dim=1)[:, :, None]
        both.take(torch.arange(len(steps)), torch.stack([scores, scores * 0], dim=1), two_maps)
        taken.append(len(steps))
    assert taken == levels
    assert both.reached
    torch.testing.assert_close(both.values[:1], alone.values)
    assert both.values[1].abs().max() == 0
    assert both.error[1] == 0
    assert true_error(both, truth) < 0.06


def test_a_target_that_is_nan_leaves_the_others_alone() -> None:
    path, _ = jumps(6)
    alone, levels = integrate(path)
    ends = path(torch.tensor([0.0, 1.0], dtype=torch.float64))[0]
    both = AdaptivePath(torch.ones(1, 400, dtype=torch.float64), torch.stack([ends, ends], dim=1), tolerance=0.01)
    while (steps := both.next()) is not None:
        scores, maps = path(steps)
        two_maps = torch.stack([maps * torch.nan, maps], dim=1)[:, :, None]
        both.take(torch.arange(len(steps)), torch.stack([scores, scores], dim=1), two_maps)
    assert both.steps == sum(levels)
    torch.testing.assert_close(both.values[1:], alone.values)
    assert not both.reached


def test_nan_ends_it_without_having_reached_anything() -> None:
    adaptive, levels = integrate(lambda a: (a, torch.full((len(a), 2), torch.nan, dtype=torch.float64)))
    assert levels == [FIRST]
    assert not adaptive.reached


def test_scores_that_end_where_they_began_need_a_small_gap_all_the_same() -> None:
    adaptive, _ = integrate(lambda a: (a * (1 - a) + 3, torch.stack([1 - 2 * a, a * 0], dim=1)), max_steps=64)
    assert adaptive.gap.abs().item() <= 1e-6 * 3 * 0.01


def test_trapezoid_is_straight_between_nodes_and_constant_beyond() -> None:
    nodes = torch.tensor([0.1, 0.3, 0.9], dtype=torch.float64)
    torch.testing.assert_close(trapezoid(nodes), torch.tensor([0.2, 0.4, 0.4], dtype=torch.float64))


def test_wrong_use_is_refused() -> None:
    one, ends = torch.ones(1, 2), torch.tensor([[0.0], [1.0]])
    with pytest.raises(ValueError, match="`tolerance` is 0"):
        AdaptivePath(one, ends, tolerance=0)
    with pytest.raises(ValueError, match="`max_steps` is 0"):
        AdaptivePath(one, ends, tolerance=0.1, max_steps=0)
    adaptive = AdaptivePath(one, ends, tolerance=0.1)
    adaptive.take(torch.arange(3), torch.zeros(3, 1), torch.ones(3, 1, 1, 2))
    with pytest.raises(ValueError, match="5 steps of the level before not taken"):
        adaptive.next()
