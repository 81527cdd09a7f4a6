"""The process that decodes: reads requests from its standard input, answers with pixels; knows neither torch nor us."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from xai_fast.images.photo_files import decoded
from xai_fast.images.preprocess import Preprocess

from .measuring import measured
from .wire import packed, unpacked

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_MEMORY = 3 << 30  # bytes of address space; what a photograph may take is bounded before it is decoded


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers until the other side ends."""
    answers.write(packed({"ready": True}))
    answers.flush()
    while True:
        try:
            request, payload = unpacked(lambda count: _exactly(requests, count))
        except EOFError:
            return
        # Whoever asked gives up before; this is for when that process is gone as well.
        signal.alarm(int(request["time_out"]) + 60)
        answers.write(_answer(request, payload))
        answers.flush()
        signal.alarm(0)


def _answer(request: dict[str, Any], payload: bytes) -> bytes:
    try:
        source = _source(request, payload)
        photo = decoded(source, FORMATS)
        preprocess = request["preprocess"]
        if request["mask"]:
            photo = covered(photo, lossy=_is_lossy(source))
        view = photo if preprocess is None else _preprocess(preprocess).view(photo)
        if request["mask"]:
            view = view.convert("L")
    except Exception as error:  # a file may be broken in any way, which costs this item alone
        return packed({"error": " ".join(str(error).split()) or type(error).__name__})
    found, looks = measured(view)
    header = {"size": photo.size, "view": view.size, "mode": view.mode, "properties": found, "looks": looks}
    return packed(header, view.tobytes())


def _source(request: dict[str, Any], payload: bytes) -> Path | bytes:
    if (name := request.get("path")) is None:
        return payload
    path = Path(os.fsdecode(bytes.fromhex(name)))
    if (offset := request.get("offset")) is None:
        return path
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(request["length"])


def _preprocess(found: dict[str, Any]) -> Preprocess:
    def fixed(value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    return Preprocess(**{name: fixed(value) for name, value in found.items()})


def covered(mask: Image.Image, *, lossy: bool) -> Image.Image:
    """White where a mask is, black elsewhere: wherever its picture is not black, so that any number of a class counts.

    Args:
        mask: in RGB or grey.
        lossy: of a file whose black is noisy: what is brighter than half of white counts.
    """
    levels = np.asarray(mask)
    strongest = levels if levels.ndim == 2 else levels.max(2)
    return Image.fromarray(np.where(strongest > (127 if lossy else 0), np.uint8(255), np.uint8(0)))


def _is_lossy(source: Path | bytes) -> bool:
    """Whether a file is a JPEG or WebP."""
    if isinstance(source, Path):
        with open(source, "rb") as file:
            start = file.read(12)
    else:
        start = source[:12]
    return start.startswith(b"\xff\xd8") or (start.startswith(b"RIFF") and start.endswith(b"WEBP"))


def _exactly(file: BinaryIO, count: int) -> bytes:
    found = file.read(count)
    if len(found) < count:
        raise EOFError
    return found


def main() -> None:
    """Keeps what decoders print away from the answers, and what they may take within bounds."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    except (ImportError, ValueError, OSError):
        pass
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
