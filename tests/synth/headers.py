"""Safetensors files of any types, also those that NumPy has none of: true headers over bodies of zeros."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_ITEM_BITS = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "F4": 4}

Entries = Mapping[str, tuple[str, tuple[int, ...]]]  # type and shape of each tensor


def write_header(path: Path, entries: Entries, values: Mapping[str, bytes] = MappingProxyType({})) -> None:
    """Makes `path` a file of these tensors; its body is a hole, but for the `values` of some."""
    header, body_bytes = _header(entries)
    path.write_bytes(header)
    os.truncate(path, len(header) + body_bytes)
    begins = {name: entry["data_offsets"][0] for name, entry in json.loads(header[8:]).items()}
    with path.open("r+b") as file:
        for name, data in values.items():
            file.seek(len(header) + begins[name])
            file.write(data)


def of(entries: Entries) -> bytes:
    """The bytes of such a file."""
    header, body_bytes = _header(entries)
    return header + bytes(body_bytes)


def _header(entries: Entries) -> tuple[bytes, int]:
    """What the file begins with, and the size of its body."""
    header, end = {}, 0
    for name, (kind, shape) in entries.items():
        begin, end = end, end + math.prod(shape) * _ITEM_BITS.get(kind, 8) // 8
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, end


def read(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bytes of each tensor of a file."""
    data = path.read_bytes()
    body = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:body])
    header.pop("__metadata__", None)
    return {
        name: (entry["dtype"], tuple(entry["shape"]), data[slice(*(body + at for at in entry["data_offsets"]))])
        for name, entry in header.items()
    }
