"""The devices that a user names for the rows of a call."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def checked_devices(devices: Sequence[str | torch.device] | None) -> tuple[torch.device, ...]:
    """The argument as devices; none where it is None.

    Raises:
        TypeError, ValueError: it names no devices, one twice, or other devices than GPUs with their numbers.
    """
    fits = 'give GPUs with their numbers, such as ("cuda:0", "cuda:1"), or None'
    if devices is None:
        return ()
    if isinstance(devices, str) or not isinstance(devices, Sequence):  # type: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"`devices` came as {devices!r}; {fits}")
    try:
        found = tuple(torch.device(each) for each in devices)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"`devices` came as {devices!r} ({error}); {fits}") from None
    numbered = all(each.type == "cuda" and each.index is not None for each in found)
    if not found or not numbered or len(set(found)) < len(found):
        raise ValueError(f"`devices` came as {devices!r}; {fits}, each once")
    return found
