"""Test-time augmentation: each input scaled, and mirrored left to right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from xai_fast.core.indices import beside, known

# (mirrored, factor) of grad-cam's six passes, without the clean one.
_PASSES = ((False, 0.9), (False, 1.1), (True, 0.9), (True, 1.0), (True, 1.1))
_MIRRORED = torch.tensor([mirrored for mirrored, _ in _PASSES])


@dataclass(frozen=True, eq=False)
class Augmented:
    """Five variants per input: times 0.9 and 1.1, and the mirror image times 0.9, 1 and 1.1."""

    inputs: Tensor
    change: ClassVar[str] = "everything"
    PER_INPUT: ClassVar[int] = len(_PASSES)

    def __len__(self) -> int:
        return len(self.inputs) * self.PER_INPUT

    def sample_of(self, rows: Tensor) -> Tensor:
        """The variants of one input follow each other."""
        return rows // self.PER_INPUT

    def mirrored(self, rows: Tensor) -> Tensor:
        """BoolTensor (rows,): which variants are mirror images, so that their maps can be turned back."""
        return beside(_MIRRORED, rows)[rows % self.PER_INPUT]

    def unchanged(self) -> Tensor:
        """Nothing is known to be."""
        return torch.zeros(len(self), dtype=torch.bool)

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Writes the scaled, mirrored inputs."""
        for position, row in enumerate(known(rows).tolist()):
            mirrored, factor = _PASSES[row % self.PER_INPUT]
            source = self.inputs[row // self.PER_INPUT]
            out[position] = (source.flip(-1) if mirrored else source) * factor
