"""AttnLRP's rules, under which the gradient times the input is relevance, and what tells that they cover a model."""

from .covered import uncovered
from .rules import relevance

__all__ = ["relevance", "uncovered"]
