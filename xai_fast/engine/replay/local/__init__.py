"""Local replay: the input differs inside a box, and only what that box reaches runs again, layer by layer."""
