"""Maps over the photographs of a run, a picture each."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from xai_fast.audit.reading import AuditRun
from xai_fast.report import overlay, save_png

from .items import chosen_method, is_signed, items


def write_overlays(run: AuditRun, folder: Path, method: str | None = None, limit: int | None = None) -> int:
    """Writes a picture NUMBER.png per image that has a map, over the part of the photograph that the model saw.

    Args:
        run: whose data are where they were.
        folder: made where it is missing.
        method: whose maps; None for the first.
        limit: pictures at most.

    Returns:
        How many were written.

    Raises:
        ValueError: an unknown method; or the photographs cannot be found or cut again.
    """
    method = chosen_method(run, method)
    signed, written = is_signed(run, method), 0
    for item in items(run, method, limit):
        folder.mkdir(parents=True, exist_ok=True)
        save_png(overlay(Image.fromarray(item.pixels), item.map, signed=signed), folder / f"{item.position:08d}.png")
        written += 1
    return written
