"""`xai-fast doctor`: versions, devices, and which implementations of each op can run here."""

from __future__ import annotations

import importlib.metadata
import platform

from .console import line, table


def run() -> None:
    """Prints what was found, and what is missing with the reason."""
    import torch

    from xai_fast.core.written import cannot_watch
    from xai_fast.ops import all_ops, backends, instruction_sets

    line(("xai_fast ", "bold"), _version("xai_fast"), f"  Python {platform.python_version()} on {platform.system()}")
    packages = ("torch", "torchvision", "triton", "numpy", "pillow", "scikit-image", "safetensors")
    line(", ".join(f"{name} {_version(name)}" for name in packages))
    sets = instruction_sets()
    kernels = f", our kernels use {sets[-1]}" if sets else ""
    line(f"CPU: {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}{kernels}")
    line(f"GPU: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'none that CUDA can use'}")
    reason = cannot_watch()
    line("weights are ", "watched for changes" if reason is None else f"read at every call to see changes: {reason}")

    availability = backends()
    rows = [
        (name, *(_cell(backend in op.backends, reason) for backend, reason in availability.items()))
        for name, op in all_ops().items()
    ]
    line()
    table(("op", *availability), rows)
    line()
    for backend, reason in availability.items():
        if reason is not None:
            line((f"{backend}: ", "bold"), reason)


def _cell(exists: bool, reason: str | None) -> str:
    if not exists:
        return "-"
    return "yes" if reason is None else "not here"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
