"""Which layer `layer="auto"` means in networks of timm, torchvision and transformers, and whether it is right.

`python benchmarks/zoo_layers.py [LIBRARY...] --json FILE` goes on where FILE stops; `zoo.py` compares maps.
A network is as `zoo.py` takes it, but for inputs of its own size, or of `--size` pixels.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import torch
from methods import conditions
from torch import Tensor, nn
from zoo import LIBRARIES, apart, built, members, own_size
from zoo_truth import Score, channels_first, first_line, logits

import xai_fast as xf
from xai_fast.core.layers.places import first_tensor, with_first

_ASIDE = re.compile(
    r"norm|bn|act|drop|pool|relu|gelu|identity", re.IGNORECASE
)  # between two maps that differ in nothing
_ATTENTION = re.compile(r"attention|attn|mha", re.IGNORECASE)
_SLOPE = 1e-6  # of the score at a position, as a share of the largest at any: less is none


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("libraries", nargs="*", default=LIBRARIES)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--only", help="networks whose name this expression matches")
    parser.add_argument(
        "--size", type=int, help="of the inputs in pixels; a network that does not take it, the next larger"
    )
    chosen = parser.parse_args()
    records = json.loads(chosen.json.read_text())["records"] if chosen.json.exists() else []
    done = {(record["zoo"], record["network"]) for record in records}
    for library in chosen.libraries:
        for family, network in members(library):
            if (library, network) in done or (chosen.only and not re.search(chosen.only, network)):
                continue
            name = {"zoo": library, "family": family, "network": network}
            empty = {"size": 0, "chosen": [], "grid": [], "seconds": 0.0, "facts": {}, "right": False, "by": "none"}
            found = apart(lambda: name | empty | measure(library, network, chosen.size), name | empty)  # noqa: B023 - runs before the next
            records.append(found)
            print(
                f"{network:40} {found['size']:4} {found['chosen']} {found['grid']} {found['facts']} {found['reason']}",
                flush=True,
            )
            chosen.json.write_text(json.dumps({"conditions": conditions(1), "records": records}, indent=1) + "\n")
    summary(records)


def measure(library: str, network: str, size: int | None) -> dict[str, Any]:
    """What a record says beside the names."""
    try:
        model, photographs = built(library, network, *([own_size(library, network)] if size is None else [size]))
    except Exception as error:  # networks refuse in their own words, which are the record
        return {"reason": f"not built: {first_line(error)}"}
    row = photographs[:1]
    target = Score(int(logits(model(row)).argmax()))
    record: dict[str, Any] = {"size": row.shape[-1], "reason": ""}
    began = time.perf_counter()
    try:
        found = xf.GradCAM(model)(row, target, resolution="native")
    except (ValueError, RuntimeError, ArithmeticError) as error:
        return record | {"reason": f"{type(error).__name__}: {first_line(error)}"}
    record["seconds"] = round(time.perf_counter() - began, 3)
    names = [found.layer] if isinstance(found.layer, str) else list(found.layer or ())
    record |= {"chosen": names, "grid": list(found.values.shape[2:])}
    record["facts"] = facts(model, row, target, names[0], tuple(record["grid"]))
    right = fits(record["facts"])
    return record | {"right": right, "by": "criterion", "reason": "" if right else "not by the criterion; see facts"}


def fits(facts: dict[str, Any]) -> bool:
    """The criterion: a layer that runs once, between whose positions the score and the input tell, and none behind it.

    The score depends on two positions at least, a changed corner of the input moves the same corner of the layer most,
    and no later module with weights, outside of attention, has a map of as many positions of which both are true and
    which is not made of class scores.
    """
    return facts["runs"] == 1 and facts["read"] > 1 and facts["corner"] > 1 and not facts["later"]


def facts(model: nn.Module, row: Tensor, target: Any, layer: str, grid: tuple[int, ...]) -> dict[str, Any]:
    """By hooks of plain PyTorch, in float32.

    Returns:
        runs: how often the layer runs.
        read: at how many of its positions the score has a slope.
        corner: by how much more the corner of the layer moves that is changed in the input than the largest of the
            other three, as a ratio of mean squares; the least of the four corners.
        later: modules behind the layer that have a map of as many positions for which the same holds.
    """
    calls = Calls(model, row, target)
    moved = [Calls(model, changed(row, corner)) for corner in range(4)]
    at = max(place for place, call in enumerate(calls.found) if call.path == layer.partition(":")[0])
    classes = logits(model(row)).shape[1]

    def qualities(place: int) -> tuple[int, float]:
        call = calls.found[place]
        try:
            slope = channels_first(call.gradient, grid).square().sum((0, 1))
            changes = [
                channels_first((each.found[place].output - call.output), grid).square().mean((0, 1)) for each in moved
            ]
        except (ValueError, TypeError, AttributeError):
            return 0, 0.0
        return int((slope > _SLOPE**2 * slope.max()).sum()), min(own(one, corner) for corner, one in enumerate(changes))

    def may_be_later(place: int) -> bool:
        path, part = calls.found[place].path, model.get_submodule(calls.found[place].path)
        inside = any(
            _ATTENTION.search(type(model.get_submodule(path.rsplit(".", up)[0])).__name__)
            for up in range(path.count(".") + 1)
        )
        weighs = any(True for _ in part.parameters()) and not _ASIDE.search(type(part).__name__)
        few = [call.path for call in calls.found].count(path) == 1
        output = calls.found[place].output
        return weighs and few and not inside and output.ndim > 2 and classes not in output.shape[1:]

    read, corner = qualities(at)
    later = []
    for place in range(at + 1, len(calls.found)):
        if may_be_later(place):
            slopes, clear = qualities(place)
            later += [calls.found[place].path] if slopes > 1 and clear > 1 else []
    runs = [call.path for call in calls.found].count(calls.found[at].path)
    return {"runs": runs, "read": read, "corner": round(corner, 3), "later": later}


def changed(row: Tensor, corner: int) -> Tensor:
    """The row with noise in one of four corners."""
    found, half = row.clone(), [extent // 2 for extent in row.shape[2:]]
    part = found[..., half[0] :, :] if corner // 2 else found[..., : half[0], :]
    part = part[..., half[1] :] if corner % 2 else part[..., : half[1]]
    part += row.std() * torch.randn(part.shape, generator=torch.Generator().manual_seed(corner))
    return found


def own(moved: Tensor, corner: int) -> float:
    """How much more the changed corner (h, w) has moved than any other."""
    half = [max(extent // 2, 1) for extent in moved.shape]
    rows, columns = (moved[: half[0]], moved[-half[0] :]), (slice(half[1]), slice(-half[1], None))
    means = [float(rows[place // 2][:, columns[place % 2]].mean()) for place in range(4)]
    return means[corner] / max(max(mean for place, mean in enumerate(means) if place != corner), 1e-30)


class Call:
    """What a module returned, and the score's gradient there."""

    def __init__(self, path: str, output: Tensor) -> None:
        self.path, self.output, self.gradient = path, output, None


class Calls:
    """The calls of all modules in one forward, in order of completion; with a target their gradients as well."""

    def __init__(self, model: nn.Module, row: Tensor, target: Any = None) -> None:
        self.found: list[Call] = []
        handles = [
            part.register_forward_hook(lambda _part, _args, output, path=path: self._note(path, output))
            for path, part in model.named_modules()
            if path
        ]
        try:
            with torch.set_grad_enabled(target is not None):
                raw = model(row.clone().requires_grad_() * 1)
        finally:
            for handle in handles:
                handle.remove()
        if target is not None:
            asked = [call for call in self.found if call.output.requires_grad]
            slopes = torch.autograd.grad(target(raw).sum(), [call.output for call in asked], allow_unused=True)
            for call, slope in zip(asked, slopes, strict=True):
                call.gradient = slope
        for call in self.found:
            call.output = call.output.detach().clone()

    def _note(self, path: str, output: Any) -> Any:
        try:
            first = first_tensor(output)
        except TypeError:
            return None
        self.found.append(Call(path, first.clone() if first.requires_grad else first.detach().clone()))
        # What follows reads the copy, so that the gradient is of what is read here and not of what is written into it.
        return with_first(output, self.found[-1].output.clone()) if first.requires_grad else None


def summary(records: list[dict[str, Any]]) -> None:
    for library in dict.fromkeys(record["zoo"] for record in records):
        mine = [
            record for record in records if record["zoo"] == library and not record["reason"].startswith("not built")
        ]
        right = sum(record["right"] for record in mine)
        print(f"{library}: right in {right} of {len(mine)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
