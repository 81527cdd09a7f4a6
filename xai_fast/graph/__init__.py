"""A model as a graph of steps: captured, folded, cut at layers, fused, and run in part or as a whole."""
