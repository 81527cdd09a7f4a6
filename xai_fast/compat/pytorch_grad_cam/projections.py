"""grad-cam's principal components, by the thin decomposition: it computes thousands of vectors that nobody reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from xai_fast.compat.calls import Call, Uncovered
from xai_fast.methods.cam.variants import projection, projection_upwards


def first_component(call: Call) -> Any:
    """With LAPACK's sign."""
    return projection(_grids(call))


def first_component_upwards(call: Call) -> Any:
    """With the larger side up."""
    return projection_upwards(_grids(call))


def _grids(call: Call) -> Any:
    found = call.explainer
    if type(found) is not np.ndarray or found.ndim < 3 or found.dtype not in (np.float32, np.float64) or not found.size:
        raise Uncovered("activations that are no array (N, C, ...)")
    return found
