"""Panels: as many output channels as two registers of the compiled kernels hold, whose weights lie side by side."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from xai_fast.ops._library import compiled, no_library, older_than

_PANELS = {torch.float32: "register_panel", torch.bfloat16: "register_panel_of_halves"}  # compiled functions


def register_panel(dtype: torch.dtype = torch.float32) -> int:
    """How many output channels the compiled kernels of convolutions want side by side, 0 without such kernels."""
    panel = _panel_function(dtype)
    return 0 if panel is None else panel()


@functools.cache
def _panel_function(dtype: torch.dtype) -> Callable[[], Any] | None:
    if dtype not in _PANELS or no_library() is not None or older_than(_PANELS[dtype])() is not None:
        return None
    return compiled(_PANELS[dtype])()


def side_by_side(dtype: torch.dtype) -> int:
    """How many input channels' weights lie side by side: pairs in bfloat16, which processors multiply at once."""
    return 2 if dtype is torch.bfloat16 else 1


def not_for_panels(
    dtype: torch.dtype, panel: int, maps: Iterable[Tensor | None], weights: Iterable[Tensor | None]
) -> str | None:
    """Why a kernel's registers do not fit a call; None where they do.

    Args:
        dtype: of what is multiplied.
        panel: for which the weights are laid out.
        maps: (N, C, H, W) what is read and written.
        weights: and what else has to be dense.
    """
    if dtype not in _PANELS:
        return f"it computes in {dtype}, not float32 or bfloat16"
    own = register_panel(dtype)
    if own == 0:
        half = dtype is torch.bfloat16
        return "there is no AVX-512 with bfloat16" if half else "there is neither AVX-512 nor AVX2 with FMA"
    if panel != own:
        return f"the channels do not come in panels of {own}"
    if not all(one is None or one.is_contiguous(memory_format=torch.channels_last) for one in maps):
        return "a map is not dense with channels last"
    return None if all(one is None or one.is_contiguous() for one in weights) else "weights are not dense"
