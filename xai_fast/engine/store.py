"""What has been prepared for a model, kept weakly beside it."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from xai_fast.core.fingerprint import Fingerprint
from xai_fast.core.prepared import Prepared


@dataclass
class Store:
    """What has been prepared for one model; never refers to that model, so that it can be kept weakly beside it."""

    fingerprint: Fingerprint | None = None
    prepared: dict[tuple[frozenset[str], bool, bool], Prepared] = field(default_factory=dict)
    last_layer: dict[tuple[int, ...], str] = field(default_factory=dict)
    activations: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)
    interrupted: int = 0  # as the model's turn had it when the first of this was prepared

    def clear(self) -> None:
        """Forgets all of it."""
        self.prepared.clear()
        self.last_layer.clear()
        self.activations.clear()


STORES: weakref.WeakKeyDictionary[nn.Module, Store] = weakref.WeakKeyDictionary()
