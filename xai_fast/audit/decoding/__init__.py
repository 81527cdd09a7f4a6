"""Photographs decoded in processes of their own, so that a file that hangs or crashes its decoder costs one item."""
