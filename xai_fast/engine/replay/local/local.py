"""The local plan of one call: which steps run on regions, which rows together, how many at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xai_fast.core.hooks import shadowed
from xai_fast.core.indices import beside, known, on_device, part
from xai_fast.core.prepared import Prepared
from xai_fast.core.shelf import Shelf, Shelves
from xai_fast.core.verify import difference, row_of
from xai_fast.graph.deadline import REASON, out_of_time
from xai_fast.graph.reasons import first_line
from xai_fast.graph.steps import INPUT
from xai_fast.graph.timed import decided, record

from ...decisions import PLAN, RATES
from ...plan import fewer, memory_allowed, unless_full
from .boxed import Boxed
from .cost import Costs, Rates, estimated, timed
from .grouping import grouped
from .pace import Pace
from .pending import Pending
from .regions import NotLocalError, Regions
from .replay import Group, Replay
from .rows import empty_like

_ROWS = {"cpu": 24, "cuda": 256}  # patches that run at once
_WHOLE_ROWS = {"cpu": 64, "cuda": 128}  # whole maps that run at once: many, because late layers have large weights
_TIMED_ROWS = 4  # of the batch whose steps are timed
_LARGEST = 16 << 20  # bytes of an intermediate on the CPU; see `core.graph.stages`
_FEWEST = 48  # rows that earn back timing the model and checking the plan
_MOST_PLANS = 8  # of one model that are kept: segments make new ones for every image
_WORTH = 0.95  # of what whole runs cost
_MOST_INPUTS = 16  # whose clean activations are kept at once, where each has few rows


@dataclass(frozen=True)
class Asked:
    """What the user and the mode ask of a local plan.

    Attributes:
        limit: bytes that kept activations may take; None takes a share of what is free.
        batch_size: rows per forward, or None.
        half: the dtype in which regions carry differences; None for regions as they are.
        forced: whether the plan is taken even where whole runs would be as fast.
    """

    limit: int | None = None
    batch_size: int | None = None
    half: torch.dtype | None = None
    forced: bool = False


@dataclass
class Local:
    """How variants of one set of boxes run.

    Attributes:
        replay: the model in two parts.
        boxes: (B, A, 2) the different boxes.
        members: per group, the numbers of its boxes.
        rows: patches at once.
        whole_rows: whole maps at once.
        inputs: whose clean activations are kept at once.
        share: the predicted cost of a row, as a share of a whole run.
        whole_seconds: what a whole run of a row takes.
        pace: what compares whole calls with that; None where the plan stays whatever it takes.
    """

    replay: Replay
    boxes: np.ndarray
    members: list[np.ndarray]
    rows: int
    whole_rows: int
    inputs: int
    share: float
    whole_seconds: float
    _spans: Mapping[int, np.ndarray]
    _groups: dict[int, Group] = field(default_factory=dict)
    pace: Pace | None = None

    def group(self, number: int) -> Group:
        """One group, worked out when it is first needed."""
        if number not in self._groups:
            self._groups[number] = self.replay.group(self._spans, self.members[number])
        return self._groups[number]

    @property
    def saved(self) -> str:
        """What is spared, for people."""
        division = self.replay.division
        return (
            f"{len(division.local)} steps re-run only the region that changed, {len(division.rest)} the whole map; "
            f"{len(self.boxes)} boxes in {len(self.members)} groups; saved work: about {1 - self.share:.0%} of a run"
        )

    def answers(
        self, prepared: Prepared, inputs: Tensor, variants: Boxed, rows: Tensor
    ) -> Iterator[tuple[Tensor, Any]]:
        """(rows, raw output) in whatever order is fastest; each of `rows` comes once."""
        kinds = _numbers_of(variants.spans()[rows].numpy(), self.boxes)
        sample = variants.sample_of(rows)
        for start in range(0, len(inputs), self.inputs):
            here = ((sample >= start) & (sample < start + self.inputs)).nonzero()[:, 0]
            if not len(here):
                continue
            batch = prepared.empty(min(self.inputs, len(inputs) - start), inputs)
            kept = self.replay.keep(batch.copy_(inputs[start : start + self.inputs]))
            yield from self._of_inputs(variants, rows[here], kinds[here.numpy()], sample[here] - start, kept)

    def _of_inputs(
        self, variants: Boxed, rows: Tensor, kinds: np.ndarray, sample: Tensor, kept: Mapping[int, Any]
    ) -> Iterator[tuple[Tensor, Any]]:
        pending = Pending(self.replay, fewer(self.whole_rows), len(rows), kept)
        for number, members in enumerate(self.members):
            at = torch.from_numpy(np.flatnonzero(np.isin(kinds, members)))
            if not len(at):
                continue
            group, total = self.group(number), len(at)
            at = torch.cat([at, at[-1:].expand(fewer(self.rows))])  # parts have one size, so the last row may repeat
            place = torch.from_numpy(np.searchsorted(members, kinds[at.numpy()]))
            # All of a group's go over at once, of which parts are views.
            every = tuple(on_device(index, kept[INPUT].device) for index in (place, sample[at], rows[at]))
            start = 0
            while start < total:
                size, count = _part(start, total, fewer(self.rows))
                places, samples, some = (part(index, start, start + size) for index in every)
                first = empty_like(kept[INPUT], size, (*kept[INPUT].shape[1:2], *group.first.size))
                variants.patch(some, beside(group.first.at, places)[places], first)
                patches = unless_full(self.replay.patches, group, places, first, samples, kept)
                if patches is None and size == 1:
                    raise MemoryError("the regions of a single row do not fit into memory")
                if patches is None:
                    self.rows = size // 2
                    continue
                yield from pending.take(group, patches, *(part(index, start, start + count) for index in every))
                start += count
        yield from pending.rest()


PLANS: Shelf[tuple[str, int, Asked], Local | str] = Shelf("local plans", most=_MOST_PLANS)
_SEEN: Shelf[tuple[()], int] = Shelf("rows that differed in boxes")
_DIVISIONS: Shelf[tuple[int, torch.dtype | None], Replay] = Shelf(
    "divisions into regions and whole maps", most=_MOST_PLANS
)
_REGIONS: Shelf[tuple[()], tuple[Regions, Rates]] = Shelf("regions and rates")


def local_of(prepared: Prepared, variants: Boxed, inputs: Tensor, asked: Asked) -> Local | str:
    """The local plan for these variants, kept for the next call with the same boxes; or why there is none.

    Args:
        prepared: the model.
        variants: what will be asked about.
        inputs: (N, C, *S) on the model's device.
        asked: what is asked for.
    """
    shape = tuple(inputs.shape[1:])
    if shape not in prepared.captured:
        return prepared.resists or "the model is not captured for inputs of this shape"
    shelves = prepared.shelves(shape)
    boxes, counts = np.unique(variants.spans().numpy(), axis=0, return_counts=True)
    key = (hashlib.sha256(boxes.tobytes()).hexdigest(), len(inputs), asked)
    if (known := shelves.get(PLANS, key)) is not None:
        return known
    case = f"{shape}, boxes {key[0][:16]} of {len(inputs)} inputs, {asked}"
    if (dropped := record().get(PLAN, case)) is not None:
        return shelves.put(PLANS, key, str(dropped))
    seen = (shelves.get(_SEEN, ()) or 0) + int(counts.sum())
    shelves.put(_SEEN, (), seen)
    if seen < _FEWEST and not asked.forced and not record().given:
        return f"planning costs more than so few rows could save; it is done once {_FEWEST} have been asked for"
    if out_of_time() or (found := _trusted(prepared, variants, inputs, boxes, counts, asked)) == REASON:
        return REASON  # a later call may plan
    if isinstance(found, Local) and not asked.forced and not record().given:
        found.pace = Pace(found.whole_seconds, lambda reason: _drop(shelves, key, case, reason))
    return shelves.put(PLANS, key, found)


def _trusted(
    prepared: Prepared, variants: Boxed, inputs: Tensor, boxes: np.ndarray, counts: np.ndarray, asked: Asked
) -> Local | str:
    """A plan that was seen to give what whole runs give; or why there is none."""
    assert isinstance(prepared.module, nn.Module)
    try:
        with shadowed(prepared.module):  # the user did not ask for these runs
            found = _planned(prepared, inputs, boxes, counts, asked)
            return found if isinstance(found, str) else _differs(found, prepared, variants, inputs) or found
    except NotLocalError as error:
        return str(error)
    except Exception as error:  # steps on inputs that the model never gives them may raise anything
        return f"re-running regions fails: {first_line(error)}"


def _drop(shelves: Shelves, key: tuple[str, int, Asked], case: str, reason: str) -> None:
    shelves.put(PLANS, key, reason)
    record().put(PLAN, case, reason)


def _planned(prepared: Prepared, inputs: Tensor, boxes: np.ndarray, counts: np.ndarray, asked: Asked) -> Local | str:
    device = (prepared.device or inputs.device).type
    regions, rates = _measured(prepared, inputs)
    if out_of_time():
        return REASON
    every = len(regions.steps)
    longest = _divided(prepared, inputs, regions, every, None)
    costs = Costs(regions, longest, rates, longest.spans(boxes), counts)
    rows = asked.batch_size or _ROWS.get(device, _ROWS["cuda"])
    # Differences stay small in reduced precision as far as regions go, so they go as far as they can.
    until = costs.best(rows) if asked.half is None else every
    replay = _divided(prepared, inputs, regions, until or every, asked.half)
    sizes, weights = costs.weights(longest if asked.half is not None else replay)
    groups = grouped(sizes, weights, counts, len(replay.steps) * rates.call, rows)
    share = costs.total(replay if asked.half is None else longest, groups, rows) / rates.whole
    if (share > _WORTH or not until) and not asked.forced:
        return f"re-running regions would cost {share:.0%} of whole runs"
    space = memory_allowed(prepared.device or inputs.device, asked.limit) // 2
    fits = space // max(replay.row_bytes, 1)
    if not fits:
        return f"the clean activations of an input take {replay.row_bytes >> 20} MiB, over half of the memory allowed"
    whole_rows = asked.batch_size or _WHOLE_ROWS.get(device, _WHOLE_ROWS["cuda"])
    if device == "cpu":
        whole_rows = max(1, min(whole_rows, _LARGEST // replay.whole_bytes))
    # More inputs at once only help where the groups of one are too small to fill their batches.
    filling = -(-len(groups) * rows * len(inputs) // max(int(counts.sum()), 1))
    inputs_at_once, spans = min(fits, _MOST_INPUTS, filling), replay.spans(boxes)
    return Local(replay, boxes, groups, rows, whole_rows, inputs_at_once, share, rates.whole, spans)


def _divided(prepared: Prepared, inputs: Tensor, regions: Regions, until: int, half: torch.dtype | None) -> Replay:
    """The model divided after so many steps, worked out once."""
    shelves = prepared.shelves(inputs.shape[1:])
    return shelves.find(_DIVISIONS, (until, half), lambda: Replay(regions, regions.divide(until), half))


def _measured(prepared: Prepared, inputs: Tensor) -> tuple[Regions, Rates]:
    """The model's regions and rates for inputs of this shape, worked out once."""
    shape = tuple(inputs.shape[1:])

    def measure() -> tuple[Regions, Rates]:
        captured = prepared.captured[shape]
        largest = max(trait.size for trait in captured.graph.traits.values())
        rows = max(1, min(_TIMED_ROWS, _LARGEST // max(largest, 1)))
        batch = prepared.empty(rows, inputs)
        batch.copy_(inputs[:1].expand_as(batch))
        # What is fused differs with the layers that somebody looks at, and with it the steps.
        case = f"{shape}, {prepared.dtype}, layers {sorted(prepared.anchors)}"
        regions = Regions(captured)  # or there are none, and nothing is timed
        rates = decided(RATES, case, lambda: timed(captured, batch).to_json(), lambda: estimated(captured).to_json())
        return regions, Rates.from_json(rates)

    return prepared.shelves(shape).find(_REGIONS, (), measure)


@torch.no_grad()
def _differs(local: Local, prepared: Prepared, variants: Boxed, inputs: Tensor) -> str | None:
    """Runs the first, the middle and the last row both ways; says where the answers differ."""
    count = len(variants.spans())
    rows = torch.tensor(sorted({0, count // 2, count - 1}))
    truth = prepared.empty(len(rows), inputs)
    variants.write(rows, truth)
    raw = prepared(truth)
    for found, mine in local.answers(prepared, inputs, variants, rows):
        for position, row in enumerate(known(found).tolist()):
            at = rows.tolist().index(row)
            dtype = local.replay.half or prepared.dtype or inputs.dtype
            reason = difference(row_of(raw, at, len(rows)), row_of(mine, position, len(found)), dtype)
            if reason is not None:
                return f"what was re-run does not reproduce the model: {reason}"
    return None


def _numbers_of(spans: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which of the sorted `boxes` each of `spans` is."""
    together = np.concatenate([boxes, spans])
    _, number = np.unique(together, axis=0, return_inverse=True)
    return number.reshape(-1)[len(boxes) :]


def _part(start: int, total: int, size: int) -> tuple[int, int]:
    """How many rows of a group come next, and how many of them count: parts have one size, so the last may repeat.

    Kernels are made for each number of rows anew, which costs more than a few rows that are thrown away.
    """
    size = -(-total // -(-total // size))
    return size, min(size, total - start)
