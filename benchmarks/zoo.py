"""How networks of timm, torchvision and transformers are captured, and whether their maps are those of float64.

`python benchmarks/zoo.py [LIBRARY...] --json FILE` goes on where FILE stops. timm comes with the extra `zoo`.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import multiprocessing
import re
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from methods import conditions
from torch import Tensor, nn
from zoo_truth import Score, compare, first_line, logits, plain_cam, plain_gradient, plain_occlusion

import xai_fast as xf
from xai_fast.core.copies import copied

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from networks import awaken, photos

LIBRARIES = ("torchvision", "transformers", "timm")
SIZES = (64, 96, 128, 224, 256, 384)  # the first that a network takes
LARGEST = 224  # inputs of the members among which timm's smallest is looked for
SECONDS = 1800  # for one network, in a process of its own
MEMORY = 10 << 30  # of addresses, for the same
PHOTOGRAPHS = 3  # a ReLU that tips over moves a gradient by a hundredth: what is off on one has to be off on all
# What makes configurations of transformers small, where they have it.
_TINY = {
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 3,
    "intermediate_size": 96, "encoder_layers": 2, "decoder_layers": 2, "d_model": 48, "num_labels": 10,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("libraries", nargs="*", default=LIBRARIES)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--only", help="networks whose name this expression matches")
    parser.add_argument("--table", action="store_true", help="print FILE as a table by family, and measure nothing")
    chosen = parser.parse_args()
    records = json.loads(chosen.json.read_text())["records"] if chosen.json.exists() else []
    if chosen.table:
        table(records)
        summary(records)
        return
    done = {(record["zoo"], record["network"]) for record in records}
    for library in chosen.libraries:
        for family, network in members(library):
            if (library, network) in done or (chosen.only and not re.search(chosen.only, network)):
                continue
            empty = {"zoo": library, "family": family, "network": network, "captured": "none", "errors": {}}
            empty |= {"said": {}, "layer": "", "gradient": False, "seconds": 0.0, "size": 0}
            records.append(apart(partial(measure, library, family, network), empty))
            say(records[-1])
            chosen.json.write_text(json.dumps({"conditions": conditions(1), "records": records}, indent=1) + "\n")
    summary(records)


def members(library: str) -> Iterator[tuple[str, str]]:
    """Families with the network that stands for each.

    timm: a family is what a file of models calls by one word; the one with fewest parameters, counted without memory,
    of those whose own input is at most 224 pixels wide. torchvision: the same, of its classifiers and segmentation
    networks. transformers: every class that the library lists for classifying images.
    """
    if library == "transformers":
        auto = importlib.import_module("transformers.models.auto.modeling_auto")
        for family, names in auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.items():
            for name in (names,) if isinstance(names, str) else names:
                yield family, name
        return
    families: dict[str, list[str]] = {}
    for name, module in _names(library):
        word = re.match("[a-z]+", name)
        families.setdefault(f"{module}/{word.group() if word else name}", []).append(name)
    for family, names in sorted(families.items()):
        small = min(names, key=lambda name: _parameters(library, name))
        if _parameters(library, small) < float("inf"):
            yield family.partition("/")[2] if library == "torchvision" else family, small


def _names(library: str) -> Iterator[tuple[str, str]]:
    if library == "torchvision":
        import torchvision

        for module in (torchvision.models, torchvision.models.segmentation):
            yield from ((name, module.__name__) for name in torchvision.models.list_models(module=module))
        return
    timm = importlib.import_module("timm")
    for module in timm.list_modules():
        yield from ((name, module) for name in timm.list_models(module=module) if not name.startswith("test_"))


def _parameters(library: str, name: str, known: dict[str, float] = {}) -> float:  # noqa: B006 - kept on purpose
    if name not in known:
        known[name] = float("inf")
        if library == "timm":
            shape = importlib.import_module("timm").get_pretrained_cfg(name).input_size
            if shape[0] != 3 or shape[1] > LARGEST:
                return known[name]
        try:
            with torch.device("meta"):
                known[name] = sum(parameter.numel() for parameter in _made(library, name, None).parameters())
        except Exception:  # some draw weights in ways that need memory
            known[name] = 1e12
    return known[name]


def _made(library: str, name: str, size: int | None) -> nn.Module:
    """The network without weights; for inputs of that size where it has to be told."""
    if library == "torchvision":
        import torchvision

        options = {"image_size": size} if size and name.startswith("vit") else {}
        segments = name in torchvision.models.list_models(module=torchvision.models.segmentation)
        options |= {"weights_backbone": None} if segments else {}
        return torchvision.models.get_model(name, weights=None, **options)
    if library == "transformers":
        transformers = importlib.import_module("transformers")
        kind = getattr(transformers, name)
        config = kind.config_class()
        for key, value in {**_TINY, "image_size": size}.items():
            # Where widths are told per stage, one for all of them contradicts those.
            if (
                isinstance(getattr(config, key, None), int)
                and value is not None
                and not hasattr(config, "hidden_sizes")
            ):
                setattr(config, key, value)
        return kind(config)
    timm = importlib.import_module("timm")
    if size is not None:
        try:
            return timm.create_model(name, pretrained=False, img_size=size)
        except TypeError:  # of a convolutional network, which takes any size
            pass
    return timm.create_model(name, pretrained=False)


def own_size(library: str, name: str) -> int:
    """The width of the photographs that a network of timm is meant for; of others that of most."""
    return importlib.import_module("timm").get_pretrained_cfg(name).input_size[1] if library == "timm" else LARGEST


def built(library: str, name: str, least: int = 0) -> tuple[nn.Module, Tensor]:
    """The network, awake, and photographs of the smallest size that it takes, from `least` on."""
    said = "no size"
    for size in sorted({max(size, least) for size in SIZES}):
        try:
            torch.manual_seed(0)
            model, inputs = _made(library, name, size).eval(), photos(6, size)
            with torch.no_grad():
                assert torch.isfinite(logits(model(inputs[:1]))).all()
        except Exception as error:  # for another size it may have another word
            said = f"{type(error).__name__}: {error}"
            continue
        try:
            awake = awaken(copy.deepcopy(model), inputs)
            with torch.no_grad():
                model = awake.eval() if torch.isfinite(logits(awake(inputs[:1]))).all() else model
        except Exception as error:  # layers that share weights cannot be waked one by one
            print(f"{name} stays asleep: {error}", file=sys.stderr)
        return model, inputs[:PHOTOGRAPHS]
    raise RuntimeError(said.splitlines()[0])


def measure(library: str, family: str, name: str) -> dict[str, Any]:
    """One record."""
    record: dict[str, Any] = {"zoo": library, "family": family, "network": name, "size": 0, "captured": "none"}
    record |= {"reason": "", "gradient": False, "layer": "", "seconds": 0.0, "errors": {}, "said": {}}
    try:
        model, photographs = built(library, name)
    except Exception as error:
        return record | {"captured": "not built", "reason": first_line(error)}
    record["size"] = photographs.shape[-1]
    # What is asked is one number per row, so that every network is asked the same.
    target = Score(int(logits(model(photographs[:1])).argmax()))
    engine = xf.Engine(model, prepare=True)
    prepared = engine.prepared(frozenset(), photographs[:1])
    graph = next((captured.graph for captured in prepared.captured.values()), None)
    parts = any("forward" in vars(part) for part in prepared.module.modules())  # type: ignore[union-attr]
    record["captured"] = "trace" if graph else "parts" if parts else "none"
    record |= {"reason": prepared.resists[:200], "gradient": graph is not None and not graph.gradient_gaps}
    record["seconds"] = round(prepared.seconds, 3)
    exact, window = copied(model).double().requires_grad_(), photographs.shape[-1] // 4
    asked: dict[str, tuple[Callable[[Tensor], Tensor], Callable[..., Tensor]]] = {
        "Saliency": (
            lambda x: xf.Saliency(engine, absolute=False).attribute(x, target),
            lambda net, x, **options: plain_gradient(net, x, target, **options),
        ),
        "Occlusion": (
            lambda x: xf.Occlusion(engine, window=window, stride=window).attribute(x, target),
            lambda net, x: plain_occlusion(net, x, target, window),
        ),
        "GradCAM": (
            lambda x: _cam(engine, x, target, record),
            lambda net, x, **options: plain_cam(net, x, target, record["layer"], tuple(record["grid"]), **options),
        ),
    }
    for method, (ours, theirs) in asked.items():
        for photograph in photographs.split(1):
            record["said"].pop(method, None)
            compare(record, method, photograph, (model, exact), ours, theirs, target)
            if record["said"].get(method) != "WRONG":
                break
    record.pop("grid", None)
    return record


def _cam(engine: xf.Engine, inputs: Tensor, target: Any, record: dict[str, Any]) -> Tensor:
    method = xf.GradCAM(engine)
    values = method.attribute(inputs, target, resolution="native")
    layer = method(inputs, target).layer
    record["layer"], record["grid"] = (
        str(layer if isinstance(layer, str) else next(iter(layer))),
        list(values.shape[2:]),
    )
    return values


def apart(work: Callable[[], dict[str, Any]], empty: dict[str, Any]) -> dict[str, Any]:
    """The record of one network, from a process of its own that may take its time, crash or fill its memory.

    Args:
        work: makes it.
        empty: what it is, beside the reason, where there was no answer.
    """
    began = time.perf_counter()
    receive, send = multiprocessing.get_context("fork").Pipe(duplex=False)

    def run() -> None:
        warnings.simplefilter("ignore")
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        send.send(work())

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    send.close()
    try:
        if receive.poll(SECONDS):
            return receive.recv()
        reason = f"CRASHED: no answer after {time.perf_counter() - began:.0f} s"
    except EOFError:
        process.join()
        reason = f"CRASHED: its process ended with {process.exitcode}"
    finally:
        if process.is_alive():
            process.terminate()
        process.join()
    return empty | {"reason": reason}


def say(record: dict[str, Any]) -> None:
    errors = "  ".join(f"{method} {found['ours']:.0e}" for method, found in record["errors"].items())
    said = "  ".join(f"[{method}: {text}]" for method, text in record["said"].items())
    print(
        f"{record['network']:40} {record['size']:4} {record['captured']:6} {errors} {said} {record['reason']}",
        flush=True,
    )


def table(records: list[dict[str, Any]]) -> None:
    """A line per family: how it is captured, the layer that "auto" means, what was said."""
    print("| library | family | network | input | captured | layer | said |\n|---|---|---|---|---|---|---|")
    for record in sorted(records, key=lambda record: (record["zoo"], record["family"], record["network"])):
        said = "; ".join(f"{method}: {text}" for method, text in record["said"].items()) or record["reason"]
        kinds = ("zoo", "family", "network", "size", "captured", "layer")
        print(f"| {' | '.join(str(record[kind]) for kind in kinds)} | {said.replace('|', '/')} |")


def summary(records: list[dict[str, Any]]) -> None:
    for library in dict.fromkeys(record["zoo"] for record in records):
        own = [record for record in records if record["zoo"] == library and record["captured"] != "not built"]
        counts = {how: sum(record["captured"] == how for record in own) for how in ("trace", "parts", "none")}
        wrong = sum("WRONG" in record["said"].values() for record in own)
        crashed = sum("CRASHED" in str([record["reason"], record["said"]]) for record in own)
        print(f"{library}: {len(own)} networks, {counts}, {wrong} wrong, {crashed} crashed")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
