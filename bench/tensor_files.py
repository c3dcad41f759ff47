"""What is in safetensors files, by their headers: the only door to safetensors, free of torch.

The format: https://huggingface.co/docs/safetensors/index#format.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from bench.core.printable import is_printable
from bench.core.regular_files import open_regular

# Of published checkpoints the longest has some 4 MB, and the most files are some hundreds.
MOST_HEADER_BYTES = 32 << 20
MOST_FILES = 4096


class BrokenHeader(ValueError):
    """A file that is not a whole safetensors file, with the reason."""


@dataclass(frozen=True)
class Entry:
    """A tensor of a file: its safetensors type (`F16`, `I32`, ...), its shape, and where its bytes are in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        """The size of the tensor's values."""
        return self.end - self.start


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of the file `path`, by name, in alphabetical order; their values are not read.

    safetensors itself checks all that the format promises, the file's size included. Raises `BrokenHeader`, and
    `OSError` for a file that cannot be read.
    """
    with open_regular(path) as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if MOST_HEADER_BYTES < header_bytes <= os.fstat(file.fileno()).st_size:
            raise BrokenHeader(f"it has {header_bytes:,} bytes; at most {MOST_HEADER_BYTES:,} are read")
        try:
            with safe_open(path, framework="numpy"):
                pass
        except SafetensorError as error:
            raise BrokenHeader(str(error)) from None
        document = json.loads(file.read(header_bytes))
    document.pop("__metadata__", None)
    if odd := next((name for name in document if not is_printable(name)), None):
        raise BrokenHeader(f"a tensor is called {odd[:80]!a}")
    body = 8 + header_bytes
    return {
        name: Entry(entry["dtype"], tuple(entry["shape"]), *(body + offset for offset in entry["data_offsets"]))
        for name, entry in sorted(document.items())
    }
