"""Results on disk: one safetensors file with the tensors, and the facts beside them as JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor


def write(path: Path, kind: str, tensors: Mapping[str, Tensor | None], facts: Mapping[str, Any]) -> Path:
    """Writes tensors (those that are None aside) and facts; the file is complete or absent, never half-written.

    Args:
        path: of the file; missing folders are made.
        kind: what the file holds; `read` asks for the same.
        tensors: by name.
        facts: what JSON can hold.
    """
    from safetensors.torch import save

    from xai_fast.report import write_atomically

    contents = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items() if tensor is not None}
    data = save(contents, metadata={"xai_fast": json.dumps({"kind": kind, **facts})})
    return write_atomically(path, lambda file: file.write(data))


def read(path: str | Path, kind: str, file_name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts that `write` wrote.

    Args:
        path: the file, or its directory.
        kind: what it must hold.
        file_name: of the file in a directory.

    Raises:
        ValueError: no such file, or one that holds something else.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    path = path / file_name if path.is_dir() else path
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("xai_fast", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"`path` {path} is not a readable safetensors file ({error})") from None
    if facts.pop("kind", None) != kind:
        raise ValueError(f"`path` {path} holds no {kind}; give what {kind}.save wrote")
    return tensors, facts
