"""Methods of coalitions once more, slowly: float64, one coalition at a time, on draws of their own making.

Random numbers are the keyed ones of the library (tested by themselves); which coalitions are made of them, and
everything after, is worked out here from the papers.
"""

from __future__ import annotations

import itertools
import math

import replicas
import torch

from xai_fast.core.random import uniforms
from xai_fast.engine.estimators.shapley_draws import weighted_draws


class Game:
    """v(S): the score of a sample that shows the segments S and the baseline elsewhere."""

    def __init__(self, model, row, target, groups, baseline):
        self.model, self.row, self.target, self.groups = model, row, target, groups
        self.hidden = replicas.hidden_by(baseline, row, groups)
        self.known = {}  # orders and draws come by the same coalition more than once

    def __len__(self):
        return len(self.groups)

    def __call__(self, players):
        key = frozenset(players)
        if key not in self.known:
            self.known[key] = self._score(key)
        return self.known[key]

    def _score(self, players):
        variant = self.row.clone()
        for player, group in enumerate(self.groups):
            if player not in players:
                variant[:, group] = self.hidden[:, group]
        with torch.no_grad():
            return replicas.score(self.model, variant, self.target).item()

    def laid(self, values):
        """(1, *S): every position has the value of its segment."""
        laid = torch.zeros(self.row.shape[1:], dtype=torch.float64)
        for group, value in zip(self.groups, values, strict=True):
            laid[group] = float(value)
        return laid[None]


def _maps(model, inputs, targets, segments, baseline, sample_ids, values_of):
    model, maps = replicas.in_double(model), []
    keys = torch.zeros(len(inputs)).long() if sample_ids is None else sample_ids
    for n, (row, target) in enumerate(zip(inputs.double(), targets, strict=True)):
        game = Game(model, row, target, replicas.groups_of(segments, n, tuple(row.shape[1:])), baseline)
        maps.append(game.laid(values_of(game, int(keys[n]))))
    return torch.stack(maps)


def _numbers(seed, key, draw, count):
    return uniforms(seed, torch.tensor([key]), torch.tensor([draw]), count)[0].tolist()


def _order(seed, key, draw, n):
    """Players by their random numbers, of which the first belongs to the draw."""
    numbers = _numbers(seed, key, draw, n + 1)[1:]
    return sorted(range(n), key=numbers.__getitem__)


def shapley_sampling(
    model, inputs, targets, *, segments, n_permutations=25, baseline=0.0, sampler="permutation", seed=0, sample_ids=None
):
    """The mean of what each player adds over random orders."""

    def values_of(game, key):
        n = len(game)
        if sampler == "permutation":
            orders = [_order(seed, key, draw, n) for draw in range(n_permutations)]
        else:
            halves = [_order(seed, key, draw, n) for draw in range(n_permutations // 2)]
            orders = [order for half in halves for order in (half, half[::-1])]
        values = [0.0] * n
        for order in orders:
            for place, player in enumerate(order):
                added = game(set(order[: place + 1])) - game(set(order[:place]))
                values[player] += added / len(orders)
        return values

    return _maps(model, inputs, targets, segments, baseline, sample_ids, values_of)


def shapley_values(game):
    """By the definition: over all coalitions without a player, weighted by their orders."""
    n = len(game)
    scores = {s: game(set(s)) for size in range(n + 1) for s in itertools.combinations(range(n), size)}
    values = []
    for player in range(n):
        value = 0.0
        for coalition, score in scores.items():
            if player not in coalition:
                size = len(coalition)
                weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
                value += weight * (scores[tuple(sorted((*coalition, player)))] - score)
        values.append(value)
    return values


def kernel_shap(
    model, inputs, targets, *, segments, n_samples=2048, baseline=0.0, sampler="paired", seed=0, sample_ids=None
):
    """Exact where all coalitions are covered; else the regression with its constraint as a Lagrange multiplier."""

    def values_of(game, key):
        n = len(game)
        if 2**n <= n_samples:
            return shapley_values(game)
        (draws,) = weighted_draws(n, [n_samples], sampler, seed, key)
        empty, full = game(set()), game(set(range(n)))
        system, right = torch.zeros(n + 1, n + 1, dtype=torch.float64), torch.zeros(n + 1, dtype=torch.float64)
        for shown, weight in zip(draws.shown.tolist(), draws.weights.tolist(), strict=True):
            row, value = torch.tensor(shown, dtype=torch.float64), game({i for i in range(n) if shown[i]}) - empty
            system[:n, :n] += weight * torch.outer(row, row)
            right[:n] += weight * row * value
        system[n, :n] = system[:n, n] = 1.0
        right[n] = full - empty
        return torch.linalg.solve(system, right)[:n].tolist()

    return _maps(model, inputs, targets, segments, baseline, sample_ids, values_of)


def lime(
    model,
    inputs,
    targets,
    *,
    segments,
    n_samples=1000,
    baseline="segment_mean",
    kernel_width=0.25,
    alpha=1.0,
    sampler="bernoulli",
    seed=0,
    sample_ids=None,
):
    """Ridge with an intercept as ordinary least squares with rows of √α, on each coalition times the root of π."""

    def values_of(game, key):
        n = len(game)
        shown, weights, scale = _lime_draws(n, n_samples, kernel_width, sampler, seed, key)
        scores = [game({i for i in range(n) if row[i]}) for row in shown]
        if sampler == "glime":
            scores = _pairs_made_linear(shown, scores, [_proximity(row, kernel_width) for row in _all_rows(n)])
        rows = [[root * value for value in (1.0, *row)] for row, root in zip(shown, _roots(weights), strict=True)]
        right = [root * score for score, root in zip(scores, _roots(weights), strict=True)]
        for i in range(n):
            rows.append([math.sqrt(alpha * scale) * (j == i + 1) for j in range(n + 1)])
            right.append(0.0)
        system, wanted = torch.tensor(rows, dtype=torch.float64), torch.tensor(right, dtype=torch.float64)
        return torch.linalg.lstsq(system, wanted[:, None]).solution[1:, 0].tolist()

    return _maps(model, inputs, targets, segments, baseline, sample_ids, values_of)


def _roots(weights):
    return [math.sqrt(weight) for weight in weights]


def _all_rows(n):
    return [list(row) for row in itertools.product((0.0, 1.0), repeat=n)]


def _with_pairs(shown):
    linear = [[1.0, *row] for row in shown]
    pairs = [[a * b for a, b in itertools.combinations(row, 2)] for row in shown]
    return torch.tensor(linear, dtype=torch.float64), torch.tensor(pairs, dtype=torch.float64)


def _pairs_made_linear(shown, scores, likely):
    """One least-squares problem per penalty, and the closest linear function over all coalitions, one by one."""
    scores = torch.tensor(scores, dtype=torch.float64)
    (linear, pairs), width = _with_pairs(shown), len(shown[0]) + 1
    left = pairs - linear @ torch.linalg.lstsq(linear, pairs).solution
    unit, rank = left.square().sum() / torch.linalg.matrix_rank(left), torch.linalg.matrix_rank(linear)
    free = len(shown) - int(rank)
    found, errors = [], []
    for penalty in (0, 1e-4, 1e-3, 10**-2.5, 1e-2, 10**-1.5, 0.1, 10**-0.5, 1, 10**0.5, 10, 10**1.5, 100, 1000, None):
        design = linear if penalty is None else torch.cat([linear, pairs], dim=1)
        normal = design.T @ design
        if penalty is not None:
            normal[width:, width:] += penalty * unit * torch.eye(pairs.shape[1], dtype=torch.float64)
        inverse = torch.linalg.pinv(normal, hermitian=True)
        fitted = inverse @ design.T @ scores
        degrees = len(shown) - torch.trace(design @ inverse @ design.T)
        if degrees >= 0.05 * free:
            found.append(torch.zeros(pairs.shape[1]).double() if penalty is None else fitted[width:])
            errors.append((scores - design @ fitted).square().sum() / degrees**2)
    believed = torch.stack(errors).div(min(errors)).pow(-free / 2)
    effects = (torch.stack(found) * believed[:, None]).sum(0) / believed.sum()
    every, their_pairs = _with_pairs(_all_rows(width - 1))
    roots = torch.tensor(likely, dtype=torch.float64).sqrt()[:, None]
    closest = torch.linalg.lstsq(every * roots, (their_pairs @ effects)[:, None] * roots).solution[:, 0]
    return (scores - pairs @ effects + linear @ closest).tolist()


def _proximity(row, width):
    n = len(row)
    cosine = sum(row) / math.sqrt(n * sum(row)) if any(row) else 0.0
    return math.sqrt(math.exp(-((1 - cosine) ** 2) / width**2))


def _lime_draws(n, n_samples, width, sampler, seed, key):
    """Coalitions as rows of 0 and 1, their weights, and what α is multiplied by."""
    if sampler == "bernoulli":
        shown = [[float(u < 0.5) for u in _numbers(seed, key, draw, n)] for draw in range(n_samples)]
        shown[0] = [1.0] * n
        return shown, [_proximity(row, width) for row in shown], 1.0
    chances = [math.comb(n, k) / 2**n * _proximity([1.0] * k + [0.0] * (n - k), width) for k in range(n + 1)]
    shown = []
    for draw in range(n_samples):  # two by two, from either end of one order
        (number,) = _numbers(seed, key, draw // 2, 1)
        drawn = (1 - number if draw % 2 else number) * sum(chances)
        size = next((k for k in range(n + 1) if drawn < sum(chances[: k + 1])), n)
        order = _order(seed, key, draw // 2, n)
        members = set((order[::-1] if draw % 2 else order)[:size])
        shown.append([float(i in members) for i in range(n)])
    return shown, [1.0] * n_samples, 1 / sum(chances)
