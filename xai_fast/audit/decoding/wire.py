"""How the two sides of a decoding process talk: a length, JSON, and bytes that it announces; nothing is executed."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 1 << 20


def packed(header: dict[str, Any], payload: bytes = b"") -> bytes:
    """A message."""
    text = json.dumps({**header, "payload": len(payload)}).encode()
    return _LENGTH.pack(len(text)) + text + payload


def unpacked(read: Callable[[int], bytes]) -> tuple[dict[str, Any], bytes]:
    """The next message, of what `read` returns (exactly so many bytes).

    Raises:
        EOFError: the other side has ended.
        ValueError: it said something else.
    """
    (length,) = _LENGTH.unpack(read(_LENGTH.size))
    if length > _LONGEST_HEADER:
        raise ValueError("a message that is none")
    header = json.loads(read(length))
    return header, read(header.pop("payload"))
