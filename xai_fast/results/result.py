"""What every result can do, whatever it holds: be saved and loaded, moved to a device, and shown in a notebook."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from xai_fast.images.preprocess import Preprocess

from . import tensor_file
from .text_pieces import Pieces

if TYPE_CHECKING:
    from PIL import Image


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class AbstractResult:
    """A frozen record of tensors, and of facts that JSON can hold. Subclasses are final and add fields.

    A field may also be a mapping of numbers to tensors, a `Preprocess`, or the pieces of a text; of callables only
    None is kept in a file.
    """

    _file: ClassVar[str]
    """Name of the file in a directory."""
    _main: ClassVar[str] = "values"
    """The field that is the result itself."""

    def save(self, directory: str | Path, *, name: str | None = None) -> Path:
        """Writes everything into one safetensors file in `directory`, and returns its path.

        The file is complete or absent, never half-written.

        Args:
            directory: made where it does not exist.
            name: of the file; None: one that `load` finds by the directory alone.
        """
        tensors: dict[str, Tensor] = {}
        facts: dict[str, Any] = {}
        for key, value in self._fields().items():
            if isinstance(value, Tensor):
                tensors[key] = value
            elif isinstance(value, Mapping):
                tensors |= {f"{key}.{number}": tensor for number, tensor in value.items()}
            elif isinstance(value, Preprocess | Pieces):
                facts[key] = dataclasses.asdict(value)
            else:
                facts[key] = None if callable(value) else value
        return tensor_file.write(Path(directory) / (name or self._file), type(self).__name__, tensors, facts)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what `save` wrote: the directory, or the file itself.

        Raises:
            ValueError: the file is not one of ours.
        """
        tensors, facts = tensor_file.read(path, cls.__name__, cls._file)
        values: dict[str, Any] = {key: _tuples(value) for key, value in facts.items()}
        for key, tensor in tensors.items():
            name, dot, number = key.partition(".")
            if dot:
                values.setdefault(name, {})[int(number)] = tensor
            else:
                values[name] = tensor
        for key, kind in (("preprocess", Preprocess), ("pieces", Pieces)):
            if values.get(key) is not None:
                values[key] = kind(**{name: _tuples(value) for name, value in values[key].items()})
        return cls(**values)

    def numpy(self) -> np.ndarray:
        """The values as an array, on the CPU; bfloat16 as float32."""
        values = getattr(self, self._main).detach().cpu()
        return (values.float() if values.dtype is torch.bfloat16 else values).numpy()

    def to(self, device: torch.device | str) -> Self:
        """The same result with its tensors on `device`."""
        moved: dict[str, Any] = {}
        for key, value in self._fields().items():
            if isinstance(value, Tensor):
                moved[key] = value.to(device)
            elif isinstance(value, Mapping):
                moved[key] = {number: tensor.to(device) for number, tensor in value.items()}
        return dataclasses.replace(self, **moved)

    def __len__(self) -> int:
        return len(getattr(self, self._main))

    def _repr_png_(self) -> bytes | None:
        """The picture that a notebook shows; None where there is none."""
        from xai_fast.report import png

        shown = self._shown()
        return None if shown is None else png(shown)

    def _shown(self) -> Image.Image | None:
        """The picture of a notebook, before it is PNG."""
        return None

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def name_of(target: Any) -> str:
    """A callable target in words."""
    return getattr(target, "__name__", None) or repr(target)


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
