"""Methods of transformers: what their attention passes on, and what comes back through it."""
