"""The loop, written once for every method: sample variants, evaluate the model on them, reduce the answers to a map."""

from .decisions import Decisions
from .engine import Engine
from .recipe import Cost, Recipe

__all__ = ["Cost", "Decisions", "Engine", "Recipe"]
