"""Sizes as people type them."""

from __future__ import annotations

import re

_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_size(text: str | int) -> int:
    """Bytes of `24GiB`, `512MiB` or a plain number; raises ValueError with what is allowed."""
    match = _SIZE.fullmatch(str(text))
    size_bytes = float(match[1]) * _UNITS.get(match[2].lower(), 0) if match else 0
    if not 1 <= size_bytes < 1 << 50:
        raise ValueError(f"{text!r} is not a size; write it as 24GiB, 512MiB or in bytes")
    return int(size_bytes)
