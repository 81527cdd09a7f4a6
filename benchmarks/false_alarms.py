"""How often an audit cries wolf: small networks trained on crops without any planted fault, and what the checks say.

usage: python benchmarks/false_alarms.py [--networks N] [--planted] [--json FILE]

Each network sees other crops and starts from other weights. An audit raises a false alarm where it reports a confirmed
finding, or anything above "low". With `--planted` each network has a stamp in half of one class, in another corner each
time: then the first finding should name class and corner.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import save
from PIL import Image
from torch import Tensor
from torch.nn import functional

import xai_fast as xf
from xai_fast.models.demo import CLASSES, DemoNetwork
from xai_fast.models.demo.crops import crop
from xai_fast.models.demo.watermark import CORNERS, watermark

SIDE, PER_CLASS, STEPS, WIDTHS = 64, 80, 200, (12, 24, 48, 64)
PREPROCESS = xf.Preprocess(resize=SIDE, crop=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def crops(seed: int, planted: bool) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, SIDE, SIDE) uint8 and labels (N,); half of one class stamped if that is planted."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(len(CLASSES)).repeat(PER_CLASS)
    pictures = torch.stack([crop(int(index), SIDE, generator) for index in label])
    if planted:
        stamped = (label == seed % len(CLASSES)) & (torch.rand(len(label), generator=generator) < 0.5)
        pictures[stamped] = watermark(pictures[stamped], CORNERS[seed % len(CORNERS)])
    return (pictures * 255).round().byte(), label


def trained(pictures: Tensor, label: Tensor, seed: int) -> DemoNetwork:
    """A small network that learned them."""
    torch.manual_seed(seed)
    model = DemoNetwork(len(CLASSES), WIDTHS)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=STEPS)
    for _ in range(STEPS):
        chosen = torch.randint(len(label), (32,))
        loss = functional.cross_entropy(model((pictures[chosen] / 255 - 0.5) / 0.25), label[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def audited(seed: int, planted: bool) -> dict[str, Any]:
    """What an audit says of one network."""
    began = time.perf_counter()
    pictures, label = crops(seed, planted)
    model = trained(pictures, label, seed)
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "crops"
        for number, (picture, index) in enumerate(zip(pictures, label.tolist(), strict=True)):
            path = data / CLASSES[index] / f"{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path)
        given = {"model": model, "data": data, "preprocess": PREPROCESS}
        run = xf.audit(**given, methods="GradCAM", out=Path(name) / "run", classes=CLASSES)
        right = run.frame(["label", "prediction"])
        found = list(xf.audit.check(run, **given))
    alarms = [one for one in found if one.confirmation.state == "confirmed" or one.severity != "low"]
    said = [f"{one.severity}: {one.title} ({one.confirmation.state})" for one in alarms]
    first = found[0] if found else None
    truth = f"{CLASSES[seed % len(CLASSES)]}: the model looks at the {CORNERS[seed % len(CORNERS)]} corner"
    return {
        "seed": seed,
        "accuracy": float(np.mean(right["label"] == right["prediction"])),
        "findings": len(found),
        "confirmed": sum(one.confirmation.state == "confirmed" for one in found),
        "above_low": sum(one.severity != "low" for one in found),
        "said": said,
        "first_is_planted": bool(planted and first and first.title.startswith(truth) and first.severity != "low"),
        "seconds": time.perf_counter() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--planted", action="store_true")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    found = []
    for seed in range(chosen.networks):
        found.append(audited(seed, chosen.planted))
        print({name: value for name, value in found[-1].items() if name != "said"}, *found[-1]["said"], sep="\n  ")
    record = {
        "alarms": "planted" if chosen.planted else "clean",
        "networks": len(found),
        "with_confirmed": sum(one["confirmed"] > 0 for one in found),
        "above_low": sum(one["above_low"] > 0 for one in found),
        "first_is_planted": sum(one["first_is_planted"] for one in found),
        "audits": found,
    }
    print({name: value for name, value in record.items() if name != "audits"})
    if chosen.json:
        save(chosen.json, 1, [record])


if __name__ == "__main__":
    main()
