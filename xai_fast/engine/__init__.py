"""The loop: sample variants, evaluate the model on them, reduce the answers to a map. Written once, for every method."""

from .engine import Engine
from .recipe import Cost, Recipe

__all__ = ["Cost", "Engine", "Recipe"]
