"""Class activation maps: one pass through the model, and a formula of a layer's activations and gradients."""
