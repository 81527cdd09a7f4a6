"""An integrand that walks like a Brownian motion: its integral from a few steps, what that may err by, and where.

The model is a fractional Brownian motion of roughness H: increments over h have squared norm s² h^(2H). H = 1/2 is the
walk that independent jumps make, H = 1 a straight line. H is read from the steps themselves, because many networks are
smoother than 1/2 over long stretches and some go back and forth.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROUGHEST, _SMOOTHEST = 0.3, 0.95
_ALIKE = 1e-4  # share of their mean by which slopes of float32 gradients differ at the least to be different


def trapezoid(nodes: Tensor) -> Tensor:
    """Weights (n,) of ascending nodes (n,) in [0, 1]: straight between them, constant beyond the outermost; sum 1."""
    edges = torch.cat([nodes.new_zeros(1), (nodes[1:] + nodes[:-1]) / 2, nodes.new_ones(1)])
    return edges.diff()


class Walk:
    """The steps taken so far, with their maps: n steps, K targets, P elements of a map. All of them are kept."""

    def __init__(self, targets: int) -> None:
        self.nodes = torch.zeros(0, dtype=torch.float64)
        self.scores = self.slopes = torch.zeros(0, targets, dtype=torch.float64)
        self.maps: list[Tensor] = []

    def add(self, nodes: Tensor, scores: Tensor, slopes: Tensor, maps: Tensor) -> None:
        """Takes nodes (m,), scores and slopes (m, K) in float64 on the CPU, and maps (m, K, P)."""
        self.nodes = torch.cat([self.nodes, nodes])
        self.scores, self.slopes = torch.cat([self.scores, scores]), torch.cat([self.slopes, slopes])
        self.maps += maps.unbind()

    def measure(self) -> None:
        """Brings the steps in order and finds how far neighbours, and next neighbours, lie apart."""
        order = self.nodes.argsort()
        self.nodes, self.scores, self.slopes = self.nodes[order], self.scores[order], self.slopes[order]
        self.maps = [self.maps[i] for i in order.tolist()]
        self._near, self._far = self._apart(1), self._apart(2)
        self._roughness = self._fit()

    def _apart(self, by: int) -> Tensor:
        pairs = zip(self.maps[by:], self.maps[:-by], strict=True)
        found = [_squared(one - other) for one, other in pairs]
        return torch.stack(found).cpu() if found else self.slopes[:0]

    def _fit(self) -> Tensor:
        """H (K,): by how much next neighbours lie further apart than a walk's would, which is the sum of two steps."""
        expected = (self._near[1:] + self._near[:-1]).sum(0)
        ratio = torch.where(expected > 0, self._far.sum(0) / expected, 1.0)
        return ((1 + ratio.log2()) / 2).clamp(_ROUGHEST, _SMOOTHEST)

    def errors(self) -> Tensor:
        """Squared L2 errors (n + 1, K) to expect of the pieces: from 0 to the first node, between nodes, to 1.

        Errors of different pieces are independent, so that theirs add up to the whole's. Infinite for one node.
        """
        if len(self.nodes) == 1:
            return self.slopes.new_full((2, self.slopes.shape[1]), torch.inf)
        h, power = self.nodes.diff()[:, None], 2 * self._roughness
        inner = h**2 * self._near * (1 / (power + 2) - 1 / 4)
        ends = torch.stack([self.nodes[0], 1 - self.nodes[-1]])[:, None]
        outer = ends**2 * self._near[[0, -1]] * (ends / h[[0, -1]]) ** power / (power + 2)
        return torch.cat([outer[:1], inner, outer[1:]])

    def residuals(self, ends: Tensor) -> Tensor:
        """Squared differences (n + 1, K), per piece, of how the scores rise and what the slopes make of it.

        Args:
            ends: (2, K), the scores at 0 and at 1.
        """
        scores = torch.cat([ends[:1], self.scores, ends[1:]])
        slopes = torch.cat([self.slopes[:1], self.slopes, self.slopes[-1:]])
        h = torch.cat([self.nodes.new_zeros(1), self.nodes, self.nodes.new_ones(1)]).diff()[:, None]
        return (scores.diff(dim=0) - h * (slopes[1:] + slopes[:-1]) / 2) ** 2

    def further(self, errors: Tensor, goal: Tensor, least: int, most: int) -> Tensor:
        """The nodes, ascending, that bring the sum of the pieces' squared errors below a goal for every target.

        Args:
            errors: (n + 1, K), squared, as `errors` gives them.
            goal: (K,), squared.
            least: how many there are at the least.
            most: and at the most.
        """
        inside = torch.zeros(len(errors), dtype=torch.long)  # new nodes per piece
        # A goal out of reach counts as near 0; a target that is NaN asks for nothing.
        goal = goal.clamp_min(1e-9 * errors.sum(0)).clamp_min(torch.finfo(goal.dtype).tiny)
        relative, power = (errors / goal).nan_to_num(), 2 * self._roughness.nan_to_num(0.5) + 1
        parts_per_node = torch.ones(len(errors), 1, dtype=torch.long)
        parts_per_node[[0, -1]] = 2  # an outer piece, open on one side, is half of a piece
        for count in range(most):
            now, then = (relative / (1 + parts_per_node * k) ** power for k in (inside[:, None], inside[:, None] + 1))
            worst = now.sum(0).argmax()
            if count >= least and now[:, worst].sum() <= 1:
                break
            inside[(now - then)[:, worst].argmax()] += 1
        edges = torch.cat([self.nodes.new_zeros(1), self.nodes, self.nodes.new_ones(1)])
        nodes: list[float] = []
        for piece, (low, high, count) in enumerate(zip(edges[:-1], edges[1:], inside.tolist(), strict=True)):
            parts = 2 * count + 1 if piece in (0, len(self.nodes)) else count + 1
            # Evenly; in an outer piece, half as far from the end of the path as from each other.
            at = torch.arange(count, dtype=torch.float64) * (parts // (count or 1)) + 1
            nodes += (low + (high - low) * at / parts).tolist()
        return torch.tensor(nodes, dtype=torch.float64)


class Sums:
    """A weighted sum of maps, and what it takes to lean the weights afterwards; nothing here grows with the steps."""

    def __init__(self, targets: int, device: torch.device) -> None:
        self._map = self._map_by_slope = torch.zeros(())
        self._slope = self._slope_squared = torch.zeros(targets, dtype=torch.float64, device=device)
        self._lowest, self._highest = self._slope + torch.inf, self._slope - torch.inf

    def add(self, weights: Tensor, slopes: Tensor, maps: Tensor) -> None:
        """Takes weights (m,) on the CPU, slopes (m, K), both in float64, and maps (m, K, P)."""
        for weight, slope, part in zip(weights.tolist(), slopes, maps, strict=True):
            self._map = self._map + weight * part
            self._map_by_slope = self._map_by_slope + (weight * slope).to(part)[:, None] * part
            self._slope = self._slope + weight * slope
            self._slope_squared = self._slope_squared + weight * slope**2
            self._lowest = torch.minimum(self._lowest, slope)
            self._highest = torch.maximum(self._highest, slope)

    def halve(self) -> None:
        """Halves all weights."""
        self._map, self._map_by_slope = self._map / 2, self._map_by_slope / 2
        self._slope, self._slope_squared = self._slope / 2, self._slope_squared / 2

    def closed(self, rise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The map, its weights w leant until its sum is `rise` (K,); they sum to 1 as w does.

        The weights become w (1 + m (slope - mean slope)): of all that make the sum right the nearest to w, by squares
        relative to w. m stops where a weight would fall below 0.

        Returns:
            the map (K, P), the part of it that leaning added (K, P), and the gap (K,) that is left.
        """
        mean, squares, lowest, highest = torch.stack(
            [self._slope, self._slope_squared, self._lowest, self._highest]
        ).cpu()
        variance = squares - mean**2
        # Slopes that differ by rounding alone would be told apart by rounding alone.
        apart = variance > (_ALIKE * mean) ** 2
        bound = 1 / torch.maximum(highest - mean, mean - lowest)
        lean = torch.where(apart, (rise - mean) / variance, 0.0).clamp(-bound, bound)
        lean = torch.where(apart, lean, 0.0)
        by = lean.to(self._map)[:, None]
        added = by * (self._map_by_slope - mean.to(self._map)[:, None] * self._map)
        return self._map + added, added, mean + lean * variance - rise


def squared_norm(maps: Tensor) -> Tensor:
    """Squared L2 norms (K,) of maps (K, P), float64 on the CPU."""
    return _squared(maps).cpu()


def _squared(maps: Tensor) -> Tensor:
    return torch.linalg.vector_norm(maps, dim=1).double() ** 2
