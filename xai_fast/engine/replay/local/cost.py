"""What regions and whole maps cost: every step of the whole forward timed once, regions by their share of its map."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xai_fast.engine.precision import wait
from xai_fast.graph.captured import Captured
from xai_fast.graph.deadline import out_of_time
from xai_fast.graph.steps import INPUT, last_uses
from xai_fast.ops import region_gather

from .boxes import Spans, lengths
from .regions import Regions
from .replay import Replay

# Small maps run at a somewhat lower rate than large ones: what a position costs more inside a patch.
_PATCH_PENALTY = 1.05
_PRODUCTS, _BYTES, _CALL = 30e9, 5e9, 10e-6  # per second, per second, seconds: two cores of 2020


@dataclass(frozen=True)
class Rates:
    """What was timed for inputs of one shape, in seconds.

    Attributes:
        steps: per value of the whole forward, one row of the step that makes it.
        byte: gathering one byte.
        call: one call of a step on next to nothing, its gathering included.
        joined: one row of the whole forward where that joins some of the steps; None where it runs them one by one.
    """

    steps: Mapping[int, float]
    byte: float
    call: float
    joined: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For a record."""
        steps = {str(n): s for n, s in self.steps.items()}
        return {"steps": steps, "byte": self.byte, "call": self.call, "joined": self.joined}

    @staticmethod
    def from_json(found: dict[str, Any]) -> Rates:
        """From a record."""
        return Rates({int(n): s for n, s in found["steps"].items()}, found["byte"], found["call"], found.get("joined"))

    @property
    def row(self) -> float:
        """One row of the steps one by one."""
        return sum(self.steps.values())

    @property
    def whole(self) -> float:
        """One row of the whole forward."""
        return self.row if self.joined is None else min(self.row, self.joined)


@torch.no_grad()
def timed(captured: Captured, batch: Tensor) -> Rates:
    """Times every step of the whole forward on a batch, twice where there is time, and a gather."""
    first = _run(captured, batch)
    second = first if out_of_time() else _run(captured, batch)
    steps = {number: min(seconds, second[number]) / len(batch) for number, seconds in first.items()}
    joined = min(_whole(captured, batch) for _ in range(2)) if captured.joins else None
    return Rates(steps, *_gathering(batch), joined)


def estimated(captured: Captured) -> Rates:
    """Rates from sizes alone, where nothing may be timed: products and bytes at speeds of an ordinary processor."""
    steps = {}
    for step in captured.steps:
        trait = captured.graph.traits.get(step.makes)
        weight = getattr(step.call, "weight", None)
        size = 0 if trait is None else trait.size
        products = (
            0 if not isinstance(weight, Tensor) or not weight.ndim else size // 4 * (weight.numel() // len(weight))
        )
        steps[step.makes] = products / _PRODUCTS + size / _BYTES + _CALL
    return Rates(steps, 1 / _BYTES, _CALL)


def _whole(captured: Captured, batch: Tensor) -> float:
    """Seconds per row of the whole forward as it runs."""
    batch = batch.clone(memory_format=torch.preserve_format)
    wait(batch)
    began = time.perf_counter()
    captured(batch)
    wait(batch)
    return (time.perf_counter() - began) / len(batch)


def _run(captured: Captured, batch: Tensor) -> dict[int, float]:
    graph, steps = captured.graph, captured.steps
    values = {INPUT: batch.clone(memory_format=torch.preserve_format), **graph.fixed}
    last, seconds = last_uses(steps, (*graph.results, *graph.fixed)), {}
    for position, step in enumerate(steps):
        wait(batch)
        began = time.perf_counter()
        values[step.makes] = step.run(values)
        wait(batch)
        seconds[step.makes] = time.perf_counter() - began
        for number in {*step.reads, step.makes}:
            if last.get(number, -1) <= position:
                values.pop(number, None)
    return seconds


def _gathering(like: Tensor) -> tuple[float, float]:
    """Seconds per byte, and per call."""
    axes = like.ndim - 2

    def once(rows: int, extent: int) -> float:
        base = torch.empty((1, 64, *[extent] * axes), dtype=like.dtype, device=like.device)
        out = base.expand(rows, *base.shape[1:]).contiguous()
        zero = torch.zeros(rows, axes, dtype=torch.long)
        times = []
        for _ in range(4):
            wait(like)
            began = time.perf_counter()
            region_gather(base, None, None, zero[:, 0], zero, out)
            wait(like)
            times.append(time.perf_counter() - began)
        return min(times) / out.nbytes if rows > 1 else min(times)

    return once(16, 16 if axes > 1 else 256), 2 * once(1, 1)


class Costs:
    """What one row costs step by step, for boxes of known spans.

    Args:
        regions: the model.
        replay: its longest division.
        rates: what was timed.
        spans: per value of the division, of all boxes.
        counts: how many rows have each box.
    """

    def __init__(
        self, regions: Regions, replay: Replay, rates: Rates, spans: Mapping[int, Spans], counts: np.ndarray
    ) -> None:
        self._regions, self._replay, self._rates = regions, replay, rates
        self._share = counts / counts.sum()
        self._sizes = {number: lengths(span) for number, span in spans.items()}

    def position(self, replay: Replay, number: int) -> float:
        """One position of a value inside a patch: computing it, and gathering what that reads."""
        rule = replay.rules[number]
        seconds = self._rates.steps.get(number, 0.0) * _PATCH_PENALTY / rule.worth()
        if rule.stays:
            return seconds
        traits = self._regions.captured.graph.traits
        read = sum(traits[n].size / int(np.prod(self._regions.scene.grids[n].extents))
                   for n in rule.sources if n in self._regions.scene.grids)  # fmt: skip
        return seconds + read * self._rates.byte

    def best(self, rows: int) -> int:
        """After how many of the model's steps whole maps take over.

        Args:
            rows: of a batch of patches.
        """
        steps, traits = self._regions.steps, self._regions.captured.graph.traits
        local = {step.makes for step in self._replay.steps}
        last = last_uses(steps, self._regions.results)
        before, after = 0.0, self._rates.row
        alive = {INPUT}
        found, least, whole_until = 0, np.inf, 0
        ends = self._ends(local)
        for position, step in enumerate(steps):
            whole_until = max(whole_until, ends.get(step.makes, 0))
            number = step.makes
            after -= self._rates.steps.get(number, 0.0)
            alive = {n for n in {*alive, number} if last.get(n, -1) > position}
            if number not in self._regions.rules:
                continue  # whole maps from here on
            if number not in local:
                continue  # fused into a later step
            before += self._position_mean(number) + self._rates.call / rows
            total = before + after + sum(traits[n].size for n in alive) * self._rates.byte
            if total < least and position >= whole_until:
                found, least = position + 1, total
        return found

    def _ends(self, local: Collection[int]) -> dict[int, int]:
        """For steps that were fused into a later one: the position of that one, before which nothing may be divided."""
        steps, ends = self._regions.steps, {}
        users = {number: position for position, step in enumerate(steps) for number in step.reads}
        for step in reversed(steps):
            if step.makes in self._regions.rules and step.makes not in local and step.makes in users:
                ends[step.makes] = ends.get(steps[users[step.makes]].makes, users[step.makes])
        return ends

    def _position_mean(self, number: int) -> float:
        mean = float(self._sizes[number].prod(axis=1) @ self._share)
        return mean * self.position(self._replay, number)

    def weights(self, replay: Replay) -> tuple[list[np.ndarray], np.ndarray]:
        """For grouping: per axis the sizes (boxes, values), and what a position of each value costs."""
        values = [step.makes for step in replay.steps if not replay.rules[step.makes].stays or self._heavy(step.makes)]
        axes = self._sizes[INPUT].shape[1]
        sizes = [np.stack([self._sizes[n][:, axis] for n in values], axis=1) for axis in range(axes)]
        return sizes, np.array([self.position(replay, n) for n in values])

    def _heavy(self, number: int) -> bool:
        return self._rates.steps.get(number, 0.0) > 0.01 * self._rates.row

    def total(self, replay: Replay, groups: list[np.ndarray], batch: int) -> float:
        """The mean row, groups and all."""
        sizes, weights = self.weights(replay)
        moves, rows = len(replay.steps), 0.0
        for group in groups:
            share = float(self._share[group].sum())
            largest = np.stack([size[group].max(axis=0) for size in sizes]).prod(axis=0)
            rows += share * (largest @ weights)
        made = {step.makes for step in replay.division.rest}
        rest = sum(seconds for number, seconds in self._rates.steps.items() if number in made)
        traits = self._regions.captured.graph.traits
        pasted = sum(traits[n].size for n in replay.division.frontier) * self._rates.byte
        return rows + rest + pasted + moves * self._rates.call / batch
