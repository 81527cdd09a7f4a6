"""Gradients without autograd's bookkeeping: an explicit backward over the captured, fused forward."""

from .rectifier import Rule, rectified
from .tape import Backward, Run, backward_of

__all__ = ["Backward", "Rule", "Run", "backward_of", "rectified"]
