"""Reading weights from files: any nesting and prefix people save them under, and never a pickle that could run code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What wrappers put before every key: DataParallel, torch.compile, training frameworks."""


def read_state_dict(path: str | Path, allow_pickle: bool = False) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU.

    Args:
        path: a safetensors file, or one written by `torch.save`: a state dict, a mapping that holds one at any depth
            (with optimiser, epoch and the rest beside it), or, with `allow_pickle`, a whole model.
        allow_pickle: unpickle whatever Python objects the file holds. That runs code of the file's author.

    Returns:
        Names and tensors, as saved. Where a file holds several state dicts, the first of those with the most tensors.

    Raises:
        ValueError: the file is missing, empty, damaged, of another format, holds no state dict, or holds Python objects
            and `allow_pickle` is not set. The message names `weights`.
    """
    path = Path(path)
    _check_file(path)
    content = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path, allow_pickle)
    found = _state_dicts(content)
    if not found:
        raise ValueError(
            f"`weights`: {path} holds {_describe(content)} and no state dict; "
            "save one with torch.save(model.state_dict(), FILE)"
        )
    return max(found, key=len)


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load a state dict into a model, after taking off a wrapper's prefix where that makes the keys fit.

    Args:
        model: receives the weights, in its own dtype and on its own device.
        state: names and tensors, as `read_state_dict` returns.
        source: the file they came from, for the message.

    Raises:
        ValueError: keys or shapes differ. Nothing has been changed then.
    """
    expected = model.state_dict()
    fitted = fit_keys(state, expected)
    missing = [key for key in expected if key not in fitted and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in fitted if key not in expected]
    reshaped = [key for key in expected if key in fitted and fitted[key].shape != expected[key].shape]
    if missing or unexpected or reshaped:
        shapes = [f"{k} {tuple(fitted[k].shape)} for {tuple(expected[k].shape)}" for k in reshaped]
        facts = [
            ("missing from the file", missing),
            ("not in the model", unexpected),
            ("of another shape", shapes),
        ]
        said = "; ".join(f"{len(names)} {fact} ({_few(names)})" for fact, names in facts if names)
        raise ValueError(
            f"`weights`: {source} does not fit {type(model).__name__} ({len(expected)} tensors): {said}. "
            "Give the file of this architecture, or build the model with the options it was trained with"
        )
    # Files older than PyTorch 0.4 have no batch counters, which matter in training only.
    model.load_state_dict({**expected, **fitted})


def fit_keys(state: Mapping[str, Tensor], expected: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict under the names that share most with `expected`, of all ways to take prefixes off."""
    candidates = [dict(state)]
    while shorter := _without_prefix(candidates[-1]):
        candidates.append(shorter)
    return max(candidates, key=lambda candidate: len(candidate.keys() & expected.keys()))


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The state dict less the prefix that all keys share, if it is one that wrappers add.

    An averaged model saves its counter `n_averaged` beside the wrapped model's keys.
    """
    wrapped = {key: value for key, value in state.items() if key != "n_averaged"}
    for prefix in PREFIXES:
        if wrapped and all(key.startswith(prefix) for key in wrapped):
            return {key.removeprefix(prefix): value for key, value in wrapped.items()}
    return None


def _check_file(path: Path) -> None:
    if not path.exists():
        raise ValueError(f'`weights`: there is no file {path}; give a .safetensors, .pth or .pt file, or "none"')
    if not path.is_file():
        there = "is a folder" if path.is_dir() else "is no ordinary file"
        raise ValueError(f"`weights`: {path} {there}; give a .safetensors, .pth or .pt file")
    if path.stat().st_size == 0:
        raise ValueError(f"`weights`: {path} is empty; download or copy it again")


def _is_safetensors(path: Path) -> bool:
    """By content, since names lie: eight bytes of header length, then the header, a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix == ".safetensors" or (len(start) == 9 and start[8:] == b"{" and start[6:8] == b"\0\0")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"`weights`: {path} is damaged or not a safetensors file ({error}); download or copy it again"
        ) from error


def _read_torch(path: Path, allow_pickle: bool) -> Any:
    if not _is_archive_or_pickle(path):
        raise _unreadable(path, "it begins like neither")
    try:
        return torch.load(path, map_location="cpu", weights_only=not allow_pickle)
    except pickle.UnpicklingError as error:
        if allow_pickle:
            raise _unreadable(path, error) from error
        raise ValueError(
            f"`weights`: {path} holds Python objects beside tensors, and loading them could run code of whoever "
            "wrote the file. If you trust it, pass allow_pickle=True; better, save "
            "model.state_dict() with safetensors.torch.save_file where it came from"
        ) from error
    except (AttributeError, ImportError) as error:
        if not allow_pickle:
            raise _unreadable(path, error) from error
        raise ValueError(
            f"`weights`: {path} needs Python code that is not here ({error}); run where that code can be imported, "
            "or save model.state_dict() there and give that file"
        ) from error
    except Exception as error:  # a damaged pickle is a program of random instructions: it can fail in any way
        raise _unreadable(path, error) from error


def _is_archive_or_pickle(path: Path) -> bool:
    """Whether a file begins as torch.save writes them: a zip archive, or (before PyTorch 1.6) a binary pickle."""
    with path.open("rb") as file:
        start = file.read(4)
    return start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] <= bytes([pickle.HIGHEST_PROTOCOL]))


def _unreadable(path: Path, error: Exception | str) -> ValueError:
    fact = str(error).split("\n", 1)[0].rstrip(". ")
    return ValueError(
        f"`weights`: {path} cannot be read: truncated, damaged, or not written by torch.save or safetensors ({fact}). "
        "Download or copy it again"
    )


def _state_dicts(content: Any) -> list[dict[str, Tensor]]:
    """The named tensors of every mapping inside `content`, outermost and first ones first.

    An optimiser's state is numbered, not named, so mappings with other keys than strings are passed over.
    """
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return []
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    nested = [found for value in content.values() for found in _state_dicts(value)]
    return [tensors, *nested] if tensors else nested


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a mapping with the keys {_few([str(key) for key in content])}"
    return f"a {type(content).__name__}"


def _few(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") if names else "none"
