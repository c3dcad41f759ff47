"""Many recordings in one file: a line of JSON that says what it is and has its checksum, then a block for each.

A block is what `bench.trace.parametric` keeps of a recording (a document, and arrays of int64), with each array by its
columns: so zlib leaves a third of it.

>>> import numpy as np
>>> block = packed({"about": 1}, {"sizes": np.arange(6).reshape(2, 3)})
>>> about, arrays = unpacked(block)
>>> about, arrays["sizes"].tolist()
({'about': 1}, [[0, 1, 2], [3, 4, 5]])
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.files import replaced

if TYPE_CHECKING:
    from bench.trace.template import Array

FORMAT = 1  # of a file, and of what a recording means: others are not read
_STORED = "<i8"  # whatever the machine


class Unreadable(Exception):
    """A file that is no pack, is of another format or was changed; the text says which."""


def packed(about: dict[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """A block of a document and its arrays."""
    import numpy as np

    head = json.dumps({"about": about, "shapes": {name: array.shape for name, array in arrays.items()}})
    columns = [np.ascontiguousarray(array.T, _STORED).tobytes() for array in arrays.values()]
    return zlib.compress(b"\n".join((head.encode(), b"".join(columns))), 9)


def unpacked(block: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """What `packed` was given."""
    import numpy as np

    text, _, body = zlib.decompress(block).partition(b"\n")
    head: dict[str, Any] = json.loads(text)
    arrays, start = {}, 0
    for name, shape in head["shapes"].items():
        count = int(np.prod(shape, dtype=np.int64))
        columns = np.frombuffer(body, _STORED, count, start).reshape(shape[::-1])
        arrays[name] = np.ascontiguousarray(columns.T, np.int64)
        start += columns.nbytes
    return head["about"], arrays


def write_pack(path: Path, origin: dict[str, Any], blocks: Mapping[str, bytes]) -> None:
    """Writes `blocks` by their names, and where they come from; the same ones make the same bytes."""
    body = b"".join(blocks.values())
    sizes = {name: len(block) for name, block in blocks.items()}
    head = {"format": FORMAT, "origin": origin, "sizes": sizes}
    line = json.dumps({**head, "sha256": _checksum(head, body)})
    with replaced(path) as partial:
        partial.write_bytes(b"\n".join((line.encode(), body)))


def read_pack(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The origin and the blocks. Raises `Unreadable`, and OSError where there is no such file."""
    line, _, body = path.read_bytes().partition(b"\n")
    try:
        head = json.loads(line)
        told, sizes = head.pop("sha256"), head["sizes"]
        if head["format"] != FORMAT:
            raise Unreadable(f"{path.name} is of format {head['format']}, and {FORMAT} is read")
        if told != _checksum(head, body):
            raise Unreadable(f"{path.name} is damaged")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Unreadable(f"{path.name} is damaged") from error
    blocks, start = {}, 0
    for name, size in sizes.items():
        blocks[name] = body[start : start + size]
        start += size
    return head["origin"], blocks


def _checksum(head: dict[str, Any], body: bytes) -> str:
    return hashlib.sha256(json.dumps(head).encode() + b"\n" + body).hexdigest()
