"""Loading models: the bundled demonstration, torchvision's zoo, or a function in a Python file."""

from __future__ import annotations

from xai_fast.models.load import load

__all__ = ["load"]
