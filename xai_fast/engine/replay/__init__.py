"""Partial re-execution: ask the model only about what changed."""
