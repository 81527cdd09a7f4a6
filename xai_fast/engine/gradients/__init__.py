"""Gradients and multipliers of a captured model, step by step without autograd."""
